"""Every Kerberos error that an administrator can cause has a code and a remedy of its own."""

from __future__ import annotations

import errno

import krb5
import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.kerberos.kdc_errors import (
    KEY_REFUSED,
    KRB5_BASE,
    REFUSALS,
    UNREACHABLE,
    EnctypeUnsupportedError,
    KdcUnreachableError,
    KeyRefusedError,
    LogonRefusedError,
    OptionRefusedError,
    PolicyRefusedError,
    error_of,
)

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
    *(33, 34, 36, 37, 38, 41, 43, 44, 45, 48, 51, 52, 60, 61, 68, 69, 90, 93),
    *range(62, 67),
    *range(70, 82),
]


def test_numbers_are_counted_from_where_libkrb5_counts() -> None:
    """A cache of a type that it does not know is KRB5_CC_UNKNOWN_TYPE, number 140."""
    with pytest.raises(krb5.Krb5Error) as caught:
        krb5.cc_resolve(krb5.init_context(), b"UNKNOWN:x")
    assert caught.value.err_code == KRB5_BASE + 140


# KRB5KDC_ERR_PREAUTH_FAILED, and KRB5_PREAUTH_FAILED that the library makes of refusals.
@pytest.mark.parametrize("number", [24, 210])
def test_a_refused_key_is_found_by_either_number(number: int) -> None:
    """Another key or a new password is tried after it."""
    assert KRB5_BASE + number in KEY_REFUSED
    assert type(error_of(KRB5_BASE + number, "no", NAME)) is KeyRefusedError


# KRB5_KT_NOTFOUND and KRB5_KT_KVNONOTFOUND, then errno.
@pytest.mark.parametrize("number", [KRB5_BASE + 181, KRB5_BASE + 230, errno.ENOENT, errno.EACCES])
def test_a_keytab_without_the_key_is_named(number: int) -> None:
    error = error_of(number, "no", NAME)
    assert (type(error), error.code) == (LogonRefusedError, "keytab-no-key")


@pytest.mark.parametrize("number", [67, 82])
def test_what_is_not_about_certificates_is_not_explained_as_that(number: int) -> None:
    """Of RFC 4120 and of a later one, beside the numbers of RFC 4556."""
    assert error_of(KRB5_BASE + number, "no", NAME).code == "kerberos"


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


def test_a_code_always_comes_in_the_same_class() -> None:
    """What is decided by the class is then decided by the code, as callers elsewhere see it."""
    classes: dict[str, set[type]] = {}
    for number in (*(KRB5_BASE + n for n in REFUSALS), *UNREACHABLE, 2, 13, 4711):
        error = error_of(number, "text", "www@EXAMPLE.TEST")
        classes.setdefault(error.code, set()).add(type(error))
    assert {code: len(each) for code, each in classes.items() if len(each) > 1} == {}
    by_class = {next(iter(each)): code for code, each in classes.items()}
    assert by_class[KeyRefusedError] == "kdc-key-refused"
    assert by_class[PolicyRefusedError] == "kdc-policy"
    assert by_class[OptionRefusedError] == "kdc-option-refused"
    assert by_class[EnctypeUnsupportedError] == "kdc-enctype-unsupported"
    assert by_class[KdcUnreachableError] == "kdc-unreachable"
    refused = {code for code, (cls,) in classes.items() if issubclass(cls, LogonRefusedError)}
    assert refused == {
        "kdc-key-refused",
        "kdc-key-expired",
        "keytab-no-key",
        "kdc-principal-unknown",
        "kdc-account-disabled",
    }
