"""Every Kerberos error that an administrator can cause has a code and a remedy of its own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.kerberos.kdc_errors import KRB5_BASE, REFUSALS, UNREACHABLE, error_of

NAME = "web$@A.TEST"
# RFC 4120 7.5.9, without what only a defect of a client or of the network brings about.
CAUSED_BY_ADMINISTRATORS = [
    *(
        1,
        2,
        4,
        5,
        6,
        7,
        8,
        9,
        10,
        11,
        12,
        13,
        14,
        15,
        16,
        17,
        18,
        19,
        20,
        21,
        22,
        23,
        24,
        25,
        26,
        27,
        28,
        29,
        31,
        32,
    ),
    *(33, 34, 36, 37, 38, 41, 43, 44, 45, 48, 51, 52, 60, 61, 62, 66, 68, 69, 70, 81, 90, 93),
]


@pytest.mark.parametrize("number", CAUSED_BY_ADMINISTRATORS)
def test_what_an_administrator_can_cause_is_explained(number: int) -> None:
    error = error_of(KRB5_BASE + number, "in another language", NAME)
    [problem] = error.problems
    assert problem.code.startswith("kdc-")
    assert problem.remedy
    assert NAME in problem.where
    assert "language" not in str(error)


# Of krb5.h: configuration, keytabs, caches and names of this host.
CAUSED_ON_THIS_HOST = [
    *(133, 134, 135, 136, 139, 140, 147, 148, 150, 151, 152, 154, 155, 156, 179, 180, 181, 185),
    *(188, 193, 194, 195, 197, 199, 200, 208, 209, 212, 213, 220, 221, 224, 229, 230, 235, 236),
    *(237, 248, 252),
]


@pytest.mark.parametrize("number", CAUSED_ON_THIS_HOST)
def test_what_this_host_s_configuration_can_cause_is_explained(number: int) -> None:
    [problem] = error_of(KRB5_BASE + number, "in another language", NAME).problems
    assert problem.code != "kerberos"
    assert problem.remedy
    assert "language" not in problem.text()


def test_what_a_controller_says_is_not_taken_for_its_silence() -> None:
    texts = {number: str(error_of(KRB5_BASE + number, "", NAME)) for number in (29, 154, 156, 220)}
    assert "answers that it cannot serve" in texts[29]
    assert all("port 88" not in texts[number] for number in (29, 154, 220))
    assert all("DNS" in texts[number] for number in (154, 220))
    assert "port 88" in texts[156]


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
