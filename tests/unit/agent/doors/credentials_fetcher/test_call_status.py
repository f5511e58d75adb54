"""Which errors clients ask again after: the ECS agent's own list of statuses is the measure."""

from __future__ import annotations

from inspect import isclass

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec import errors
from credspec.agent.doors.credentials_fetcher.call_status import (
    PERMANENT_FAULTS,
    RETRIABLE,
    STATUS_OF_CLASS,
    TRANSIENT_FAULTS,
    TRANSIENT_REFUSALS,
    status_of,
)
from credspec.errors import (
    CredspecError,
    InvalidSpecError,
    NotPermittedError,
    TooManyRequestsError,
    UnreachableError,
    UsageError,
    joined,
)
from credspec.kerberos.kdc_errors import KRB5_BASE, REFUSALS, error_of
from support.agent.error_codes import raised

# IsRetriableGRPCError of aws/amazon-ecs-agent, ecs-agent/utils/retry/grpc.go, June 2026.
ECS_AGENT_RETRIES = {
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "ABORTED",
    "INTERNAL",
}
CLASSES = {c for c in vars(errors).values() if isclass(c) and issubclass(c, CredspecError)}
REACHED = (
    "agent",
    "config",
    "directory",
    "kerberos",
    "providers",
    "service",
    "session",
    "sockets",
    "spec",
    "errors.py",
)
"""What runs in the agent; errors of programs of their own never come to a client of gRPC."""
NOT_IN_A_CALL = {
    "agent-socket-missing",
    "capabilities",
    "host-mounts",
    "spec-directory-missing",
    "spec-directory-unreadable",
    "spec-exists",
    "spec-file-unwritable",
    "systemctl",
    "systemd-missing",
}
"""What fails when the agent starts, or in a command that writes specs or units."""


def test_every_class_has_a_status() -> None:
    assert STATUS_OF_CLASS.keys() == CLASSES
    for status in STATUS_OF_CLASS.values():
        assert (status in RETRIABLE) == (status in ECS_AGENT_RETRIES)
        assert grpc.StatusCode[status] is not grpc.StatusCode.OK


def test_every_code_is_final_or_retriable_and_none_is_forgotten() -> None:
    pairs = raised()
    assert len(pairs) > 200
    for cls, code in pairs:
        assert status_of(cls.of(code, "x")) in {*STATUS_OF_CLASS.values(), "FAILED_PRECONDITION"}
    # The class of these says nothing, so each is in one of the lists, and none of them is dead.
    plain = {code for cls, code in raised(*REACHED) if cls is CredspecError} - NOT_IN_A_CALL
    assert plain == PERMANENT_FAULTS | TRANSIENT_FAULTS
    assert not PERMANENT_FAULTS & TRANSIENT_FAULTS


def test_refusals_that_pass_exist_with_their_class() -> None:
    kerberos = {refusal.code for refusal in REFUSALS.values()}
    known = {code for cls, code in raised() if cls is NotPermittedError} | kerberos
    assert known >= TRANSIENT_REFUSALS


@pytest.mark.parametrize("number", sorted(REFUSALS))
def test_what_a_controller_refuses_is_final_unless_its_code_says_otherwise(number: int) -> None:
    error = error_of(KRB5_BASE + number, "", "alice@EXAMPLE.TEST")
    assert (status_of(error) in ECS_AGENT_RETRIES) == (error.code in TRANSIENT_REFUSALS)


@pytest.mark.parametrize(
    ("cls", "code", "status"),
    [
        (UsageError, "lease-id-invalid", "INVALID_ARGUMENT"),
        (UsageError, "arn-invalid", "INVALID_ARGUMENT"),
        (InvalidSpecError, "spec-not-json", "INVALID_ARGUMENT"),
        (errors.NotFoundError, "account-not-found", "NOT_FOUND"),
        (NotPermittedError, "password-not-permitted", "PERMISSION_DENIED"),
        (NotPermittedError, "kdc-account-disabled", "PERMISSION_DENIED"),
        (NotPermittedError, "kdc-clock-skew", "INTERNAL"),
        (CredspecError, "secret-invalid", "FAILED_PRECONDITION"),
        (CredspecError, "internal-error", "INTERNAL"),
        (TooManyRequestsError, "leases-too-many", "RESOURCE_EXHAUSTED"),
        (UnreachableError, "dns-unreachable", "UNAVAILABLE"),
        (UnreachableError, "secret-invalid", "UNAVAILABLE"),
    ],
)
def test_statuses(cls: type[CredspecError], code: str, status: str) -> None:
    assert status_of(cls.of(code, "x")) == status


ERRORS = st.sampled_from(sorted(raised(), key=lambda pair: (pair[0].__name__, pair[1]))).map(
    lambda pair: pair[0].of(pair[1], "x")
)


@given(st.lists(ERRORS, min_size=1, max_size=5))
def test_several_errors_are_retriable_only_if_each_of_them_is(several: list[CredspecError]) -> None:
    error = joined(several).detached()
    expected = all(status_of(each) in ECS_AGENT_RETRIES for each in several)
    assert (status_of(error) in ECS_AGENT_RETRIES) == expected
    nested = joined([error, several[0]])
    assert (status_of(nested) in ECS_AGENT_RETRIES) == expected
    refused = (each for each in several if not isinstance(each, UnreachableError))
    assert type(error) is type(next(refused, several[0]))
    assert error.problems == tuple(dict.fromkeys(p for each in several for p in each.problems))
