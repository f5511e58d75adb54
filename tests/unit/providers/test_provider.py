from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from credspec.errors import CredspecError
from credspec.providers.answers import MAX_ANSWER_BYTES, account_from_json, account_from_line
from credspec.providers.provider import (
    GivenAccount,
    HostAccount,
    PluginSource,
    checked_account,
)

SECRET = "Very-Secret-1!"
OLD_NAMES = """{"usernameOfStandardUserAccount": "reader", "passwordOfStandardUserAccount": "p",
"domainName": "contoso.com", "distinguishedName": "CN=x"}"""


@pytest.mark.parametrize(
    ("domain", "user"),
    [("contoso.com", "reader"), ("", "CONTOSO\\reader"), ("contoso.com", "reader@contoso.com")],
)
def test_names_in_every_form(domain: str, user: str) -> None:
    assert checked_account(domain, user, SECRET, "w").user == "reader"


@pytest.mark.parametrize(
    ("domain", "user", "password"),
    [
        ("", "reader", SECRET),
        ("contoso.com", "", SECRET),
        ("contoso.com", "reader", ""),
        ("contoso.com", "rea/der", SECRET),
        ("contoso.com", "reader\n", SECRET),
        ("contoso.com\0", "reader", SECRET),
        ("../..", "reader", SECRET),
        ("contoso.com", "x" * 257, SECRET),
        ("contoso.com", "reader", "a\0b"),
        ("contoso.com", "reader", "x" * 10 * 2**20),
    ],
)
def test_what_cannot_be_an_account(domain: str, user: str, password: str) -> None:
    with pytest.raises(CredspecError, match="host-account-invalid") as caught:
        checked_account(domain, user, password, "w")
    assert SECRET not in str(caught.value)


def test_nothing_shows_the_secret() -> None:
    account = HostAccount("contoso.com", "reader", SECRET)
    source = PluginSource("{x}", f"contoso:reader:{SECRET}")
    for shown in (account, GivenAccount(account), source):
        assert SECRET not in repr(shown) + str(shown)


def test_sources_are_the_same_only_if_all_is() -> None:
    account = HostAccount("contoso.com", "reader", SECRET)
    assert GivenAccount(account) == GivenAccount(HostAccount("contoso.com", "reader", SECRET))
    assert GivenAccount(account) != GivenAccount(HostAccount("contoso.com", "reader", "other"))
    assert str(GivenAccount(account)) != str(GivenAccount(HostAccount("contoso.com", "reader")))
    assert PluginSource("{x}", "a") != PluginSource("{x}", "b")


@pytest.mark.parametrize(
    "text",
    [
        '{"username": "reader", "password": "p", "domainName": "contoso.com"}',
        OLD_NAMES,
        '{"username": "CONTOSO\\\\reader", "password": "p"}',
    ],
)
def test_json_answers(text: str) -> None:
    account = account_from_json(text, "w")
    assert (account.user, account.password) == ("reader", "p")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"[" * 60000,
        b'{"username": 1, "password": "Very-Secret-1!", "domainName": "x"}',
        b'{"password": "Very-Secret-1!"}',
        b"Very-Secret-1!",
        b"Very-Secret-1!" * 2**20,
    ],
)
def test_garbage_is_refused_and_never_quoted(data: bytes) -> None:
    with pytest.raises(CredspecError, match="host-account-answer") as caught:
        account_from_json(data, "w")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("length", [64 * 1024, 64 * 1024 + 1])
def test_an_answer_may_be_so_long(length: int) -> None:
    """Whatever the account in it: services pad and add as they like."""
    document = OLD_NAMES.encode().ljust(length)
    if length <= MAX_ANSWER_BYTES:
        assert account_from_json(document, "w").user == "reader"
    else:
        with pytest.raises(CredspecError, match="more than 65536 bytes"):
            account_from_json(document, "w")
    with pytest.raises(CredspecError) as caught:
        account_from_line("CONTOSO\\reader:".ljust(length, "p"), "w")
    # A password of that length is none, but it is looked at.
    assert ("more than" in str(caught.value)) == (length > MAX_ANSWER_BYTES)


def test_azures_form() -> None:
    assert account_from_line("CONTOSO\\reader:a:b", "w") == HostAccount("CONTOSO", "reader", "a:b")
    for text in ("reader:p", "CONTOSO\\reader", ""):
        with pytest.raises(CredspecError, match="host-account-answer"):
            account_from_line(text, "w")


NAMES = st.text('aZ09.-_$@\\:/"\n\u00e4 ', max_size=12)
# Answers of the right form, whatever is in them.
FORMED = st.builds(
    lambda domain, user, password: json.dumps(
        {"domainName": domain, "username": user, "password": password}
    ),
    *(NAMES, NAMES, NAMES),
) | st.builds("{}\\{}:{}".format, NAMES, NAMES, NAMES)


@given(st.binary(max_size=200) | st.text(max_size=200) | FORMED)
@example('{"domainName": "contoso.com", "username": "reader", "password": "p"}')
@example("CONTOSO\\reader:p")
def test_any_answer_is_an_account_or_our_error(data: bytes | str) -> None:
    readers = [account_from_json]
    if isinstance(data, str):
        readers.append(account_from_line)
    for read in readers:
        try:
            account = read(data, "w")
        except CredspecError:
            continue
        assert account.user
        assert not set(account.user) & set('/\\@"')
