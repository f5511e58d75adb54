"""Which failures a container's start waits for, and which it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from credspec.agent.doors.http.passing_errors import JUST_BOOTED_SECONDS, retry_after, uptime
from credspec.contract import start_wait
from credspec.errors import (
    CertificateTimeError,
    ClockRefusalError,
    CredspecError,
    InvalidSpecError,
    NotFoundError,
    NotPermittedError,
    Problem,
    QuotaExceededError,
    TlsTrustError,
    TooManyRequestsError,
    UnreachableError,
    UsageError,
    joined,
)

LONG_UP = JUST_BOOTED_SECONDS + 1


@pytest.mark.parametrize(
    "code",
    [
        "dns-unreachable",
        "dc-unreachable",
        "dc-unsuitable",
        "domain-timeout",
        "kdc-unreachable",
        "ldap-unreachable",
        "ldap-unavailable",
        "ldap-timeout",
        "host-account-unreachable",
    ],
)
def test_an_outage_is_waited_for_at_any_time(code: str) -> None:
    for up in (5.0, LONG_UP):
        assert retry_after(UnreachableError.of(code, "x"), lambda up=up: up) == 1


@pytest.mark.parametrize(
    "error",
    [
        NotPermittedError.of("policy-account", "x"),
        NotPermittedError.of("password-not-permitted", "x"),
        NotPermittedError.of("host-keytab-stale", "x"),
        NotFoundError.of("account-not-found", "x"),
        InvalidSpecError.of("spec-not-json", "x"),
        UsageError.of("lease-id-invalid", "x"),
        CredspecError.of("journal-unwritable", "x"),
        TlsTrustError.of("ldap-certificate-authority", "x"),
        TlsTrustError.of("ldap-ca-file", "x"),
        QuotaExceededError.of("leases-too-many", "x"),
    ],
)
def test_a_refusal_never(error: CredspecError) -> None:
    for up in (5.0, LONG_UP):
        assert retry_after(error, lambda up=up: up) is None


@pytest.mark.parametrize(
    "error",
    [
        UnreachableError.of("domain-not-found", "x"),
        ClockRefusalError.of("kdc-clock-skew", "x"),
        CertificateTimeError.of("ldap-certificate-not-yet-valid", "x"),
    ],
)
def test_a_clock_and_a_name_right_after_the_boot_only(error: CredspecError) -> None:
    assert retry_after(error, lambda: JUST_BOOTED_SECONDS - 1) == 1
    assert retry_after(error, lambda: LONG_UP) is None


def test_an_outage_with_an_old_ticket_is_an_outage() -> None:
    problems = (Problem("ldap-timeout", "x"), Problem("ticket-unfit", "x"))
    assert retry_after(UnreachableError(*problems), lambda: LONG_UP) == 1


@pytest.mark.parametrize(
    ("codes", "while_booting", "later"),
    [
        ((UnreachableError, ClockRefusalError), 1, None),
        ((ClockRefusalError, CertificateTimeError), 1, None),
        ((UnreachableError, UnreachableError), 1, 1),
        ((UnreachableError, TlsTrustError), None, None),
        ((ClockRefusalError, NotPermittedError), None, None),
        ((NotPermittedError, UnreachableError), None, None),
    ],
)
def test_of_several_errors_each_must_pass(
    codes: tuple[type[CredspecError], ...], while_booting: int | None, later: int | None
) -> None:
    error = joined([cls.of(f"a-{n}", "x") for n, cls in enumerate(codes)])
    assert retry_after(error, lambda: JUST_BOOTED_SECONDS - 1) == while_booting
    assert retry_after(error, lambda: LONG_UP) == later


def test_a_user_that_asks_too_often_learns_when() -> None:
    error = TooManyRequestsError.of("leases-too-often", "x")
    error.retry_after = 7
    assert retry_after(error) == 7


def test_the_uptime_is_the_kernels() -> None:
    shown = Path("/proc/uptime").read_text("ascii").split()[0]
    assert uptime() == pytest.approx(float(shown), abs=60)


def test_the_shim_which_imports_nothing_of_the_agent_has_the_same_time() -> None:
    assert start_wait.JUST_BOOTED_SECONDS == JUST_BOOTED_SECONDS
