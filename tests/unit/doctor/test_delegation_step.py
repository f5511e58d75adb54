from __future__ import annotations

from dataclasses import replace

import pytest

from credspec.directory.delegation import Delegation
from credspec.doctor.delegation_step import delegation_problems

NOTHING = Delegation(
    (), any_service=False, any_protocol=False, is_sensitive=False, is_protected=False
)
SERVICES = replace(NOTHING, services=("HTTP/back.example.test",))


@pytest.mark.parametrize(
    ("found", "forwardable", "codes"),
    [
        (NOTHING, True, []),
        (NOTHING, False, []),
        (SERVICES, True, []),
        (SERVICES, False, ["delegation-not-forwardable"]),
        (replace(NOTHING, any_service=True), True, ["delegation-unconstrained"]),
    ],
)
def test_what_is_worth_a_warning(found: Delegation, codes: list[str], *, forwardable: bool) -> None:
    problems = delegation_problems("Web$", found, forwardable=forwardable)
    assert [problem.code for problem in problems] == codes
    assert all(problem.remedy for problem in problems)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (replace(SERVICES, is_sensitive=True), "sensitive"),
        (replace(SERVICES, is_protected=True), "Protected Users"),
        (SERVICES, "the domain"),
    ],
)
def test_the_reason_is_what_the_directory_shows(found: Delegation, reason: str) -> None:
    [problem] = delegation_problems("Web$", found, forwardable=False)
    assert reason in problem.found
