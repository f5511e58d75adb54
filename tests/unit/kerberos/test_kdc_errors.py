"""Every Kerberos error that an administrator can cause has a code and a remedy of its own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.kerberos.kdc_errors import KRB5_BASE, REFUSALS, UNREACHABLE, error_of

NAME = "web$@A.TEST"
# RFC 4120 7.5.9, without what only a defect of a client or of the network brings about.
CAUSED_BY_ADMINISTRATORS = [
    *(1, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 19, 20, 21, 23, 24, 25, 27, 28, 29, 31, 32),
    *(33, 37, 38, 41, 44, 45, 52, 60, 68),
]


@pytest.mark.parametrize("number", CAUSED_BY_ADMINISTRATORS)
def test_what_an_administrator_can_cause_is_explained(number: int) -> None:
    error = error_of(KRB5_BASE + number, "in another language", NAME)
    [problem] = error.problems
    assert problem.code.startswith("kdc-")
    assert problem.remedy
    assert NAME in problem.where
    assert "language" not in str(error)


@given(st.integers(-(2**31), 2**31 - 1), st.text(max_size=40))
def test_every_number_is_an_error_that_names_it_at_most_once(number: int, text: str) -> None:
    error = error_of(number, f"{text} {number}", NAME)
    if number - KRB5_BASE not in REFUSALS and error.code == "kerberos":
        said = error.problems[0].found.removeprefix(f"Kerberos error {number}: ")
        assert not said.endswith(f" {number}") or text.endswith(f" {number}")
    assert error.problems[0].remedy


def test_codes_and_remedies_are_told_apart() -> None:
    texts = {(refusal.code, refusal.remedy) for refusal in REFUSALS.values()}
    assert len({code for code, _ in texts}) == len(texts)
    assert all(number - KRB5_BASE not in REFUSALS for number in UNREACHABLE)


def test_a_policy_names_what_it_may_be() -> None:
    text = str(error_of(KRB5_BASE + 12, "KDC policy rejects request -1765328372", NAME))
    for word in ("authentication policy", "silo", "selective authentication", "[kdc-policy]"):
        assert word in text
