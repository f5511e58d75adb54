"""Which errors clients ask again after: the ECS agent's own list of statuses is the measure."""

from __future__ import annotations

from inspect import isclass

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec import errors
from credspec.agent.doors.credentials_fetcher.call_status import (
    RETRIABLE,
    STATUS_OF_CLASS,
    status_of,
)
from credspec.errors import (
    ClockRefusalError,
    CredspecError,
    InvalidSpecError,
    NotPermittedError,
    PermanentFaultError,
    TlsTrustError,
    TooManyRequestsError,
    TransientRefusalError,
    UnreachableError,
    UsageError,
    joined,
)
from credspec.kerberos.kdc_errors import KRB5_BASE, REFUSALS, PolicyRefusedError, error_of
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

TRANSIENT_REFUSALS = {
    # Clocks are synchronised without anybody asking for it.
    "kdc-clock-skew",
    "kdc-ticket-times",
    "ticket-unfit",
    # The next attempt logs on again, or asks another controller.
    "kdc-tgt-revoked",
    "kdc-failed",
}
TRANSIENT_FAULTS = {
    "audit-unwritable",
    "call-timeout",
    "calls-waiting",
    "clock-missing",
    "container-gone",
    "decoy-key-unwritable",
    "domain-facts-missing",
    "gss-cache",
    "host-account-provider",
    "internal-error",
    "journal-record-too-long",
    "journal-unwritable",
    "kerberos",
    "key-version-unstable",
    "krb5-conf-unwritable",
    "ldap",
    "lease-directory-full",
    "lease-directory-missing",
    "lease-directory-unwritable",
    "lease-tree-unwritable",
    "netlogon-answer-empty",
    "netlogon-answer-malformed",
    "user-lookup-timeout",
}
"""What may pass: of a full disk, of a controller in trouble."""


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
    # A new one must be listed here, or have a class that says that it lasts.
    plain = {code for cls, code in raised(*REACHED) if cls is CredspecError} - NOT_IN_A_CALL
    assert plain == TRANSIENT_FAULTS
    lasting = {code for cls, code in raised(*REACHED) if cls is PermanentFaultError}
    assert "managed-password-malformed" in lasting
    assert not lasting & TRANSIENT_FAULTS


def test_refusals_that_pass_are_those_of_clocks_and_of_what_is_tried_elsewhere_next() -> None:
    of_controllers = {(refusal.error, refusal.code) for refusal in REFUSALS.values()}
    found = {code for cls, code in raised() if issubclass(cls, TransientRefusalError)}
    found |= {code for cls, code in of_controllers if issubclass(cls, TransientRefusalError)}
    assert found == TRANSIENT_REFUSALS


@pytest.mark.parametrize("number", sorted(REFUSALS))
def test_what_a_controller_refuses_is_final_unless_it_is_known_to_pass(number: int) -> None:
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
        (ClockRefusalError, "kdc-clock-skew", "INTERNAL"),
        (PermanentFaultError, "secret-invalid", "FAILED_PRECONDITION"),
        (CredspecError, "internal-error", "INTERNAL"),
        (TooManyRequestsError, "leases-too-many", "RESOURCE_EXHAUSTED"),
        (UnreachableError, "dns-unreachable", "UNAVAILABLE"),
        (UnreachableError, "secret-invalid", "UNAVAILABLE"),
        (TlsTrustError, "ldap-certificate", "UNAVAILABLE"),
        (PolicyRefusedError, "kdc-policy", "PERMISSION_DENIED"),
    ],
)
def test_statuses(cls: type[CredspecError], code: str, status: str) -> None:
    assert status_of(cls.of(code, "x")) == status


# All source is read for it, which takes seconds: not while tests are collected.
ERRORS = st.deferred(
    lambda: st.sampled_from(sorted(raised(), key=lambda pair: (pair[0].__name__, pair[1]))).map(
        lambda pair: pair[0].of(pair[1], "x")
    )
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
