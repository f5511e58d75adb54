"""What is asked of the directory about accounts, and what is said of those who may not read."""

from __future__ import annotations

import uuid
from typing import cast

import pytest

from credspec.directory.accounts import (
    GroupManagedServiceAccount,
    accounts_with_service_principal_name,
    find_account,
    name_is_taken,
    not_permitted,
    reader_of,
)
from credspec.directory.connection import Connection, Entry
from credspec.directory.domain import DomainFacts
from credspec.errors import NotFoundError

FACTS = DomainFacts("X.test", "XX", "x.test", "S-1-5-21-0-0-0", str(uuid.UUID(int=0)),
                    "DC=x,DC=test", "CN=Configuration,DC=x,DC=test")  # fmt: skip
ACCOUNT = GroupManagedServiceAccount(
    distinguished_name="CN=WebApp01,DC=x,DC=test",
    account_name="WebApp01$",
    sid="S-1-5-21-0-0-0-1104",
    enabled=True,
    is_workstation_trust=True,
    service_principal_names=(),
    readers=("S-1-5-21-0-0-0-1105",),
)
FOUND: Entry = {
    "dn": [b"CN=WebApp01,DC=x,DC=test"],
    "samaccountname": [b"WebApp01$"],
    "objectsid": [bytes.fromhex("010400000000000515000000") + bytes(12)],
}


class Simulated:
    """Answers each search with the next list of entries, and notes the filters."""

    def __init__(self, *answers: list[Entry]) -> None:
        self.answers = list(answers)
        self.filters: list[str] = []

    def search(self, _base: str, wanted: str, _attributes: object, **_: object) -> list[Entry]:
        self.filters.append(wanted)
        return self.answers.pop(0) if self.answers else []


def connection(*answers: list[Entry]) -> Connection:
    return cast("Connection", Simulated(*answers))


def filters(of: Connection) -> list[str]:
    return cast("Simulated", of).filters


@pytest.mark.parametrize("name", ["x.TEST\\WebApp01", "xx\\WebApp01", "XX\\WebApp01$"])
def test_a_domain_has_two_names_in_any_letter_case(name: str) -> None:
    assert find_account(connection([FOUND]), FACTS, name).account_name == "WebApp01$"


def test_flags_that_the_directory_does_not_show_are_none() -> None:
    account = find_account(connection([FOUND]), FACTS, "WebApp01")
    assert (account.enabled, account.is_workstation_trust) == (True, False)
    assert account.readers == account.service_principal_names == ()


@pytest.mark.parametrize(
    ("name", "by_account_name"),
    [
        ("WebApp01", True),
        ("WebApp01@x.test", True),
        ("CN=WebApp01,DC=x,DC=test", False),
        ("87a0c4bc-14ce-4d19-baf6-4f370737562c", False),
        ("S-1-5-21-0-0-0-1104", False),
    ],
)
def test_what_is_there_instead_is_looked_for_as_the_name_was_given(
    name: str, *, by_account_name: bool
) -> None:
    asked = connection([], [])
    with pytest.raises(NotFoundError, match="account-not-found"):
        find_account(asked, FACTS, name)
    first, second = filters(asked)
    assert "objectClass=msDS-GroupManagedServiceAccount" in first
    assert "objectClass=" not in second
    assert ("(sAMAccountName=WebApp01)" in second) is by_account_name


def test_who_may_read_and_how_to_allow_the_host() -> None:
    """The host's own name is what its token says; here the directory shows none."""
    error = not_permitted(connection([{"samaccountname": [b"LabHosts"]}]), FACTS, ACCOUNT, "")
    text = str(error)
    assert "this host may not read the managed password of WebApp01$" in text
    assert r"allowed: XX\LabHosts" in text
    assert "allow the account of the host or a group it is in" in text
    assert "the host needs a new ticket" in text
    assert "Set-ADServiceAccount 'WebApp01'" in text
    assert "'LabHosts','HOST$'" in text


def test_another_reader_than_the_host_is_named() -> None:
    nobody = connection()
    account = ACCOUNT
    text = str(not_permitted(nobody, FACTS, account, "reader@X.TEST"))
    assert "reader@X.TEST may not read" in text
    # Its SID, where the directory does not show a name.
    assert "allowed: S-1-5-21-0-0-0-1105" in text
    assert "allow reader@X.TEST or a group it is in" in text
    assert "it needs a new ticket" in text
    assert "'reader'" in text
    assert len(filters(nobody)) == 1, "who is logged on is known"


@pytest.mark.parametrize(
    ("reader", "shown"),
    [("", "no account that this host can see"), ("a@X", "no account that a@X can see")],
)
def test_where_nobody_is_seen_that_may_read(reader: str, shown: str) -> None:
    account = GroupManagedServiceAccount(
        "CN=a", "WebApp01$", ACCOUNT.sid, True, True, (), ()
    )  # fmt: skip
    assert f"allowed: {shown}" in str(not_permitted(connection(), FACTS, account, reader))


@pytest.mark.parametrize(
    ("principal", "reader"),
    [
        ("HOST1$@X.TEST", ""),
        ("reader@X.TEST", "reader@X.TEST"),
        ("a$b@X", "a$b@X"),
        ("a@X$", "a@X$"),
    ],
)
def test_a_computer_may_be_this_host(principal: str, reader: str) -> None:
    assert reader_of(principal) == reader


def test_a_name_without_its_dollar_may_be_another_accounts() -> None:
    asked = connection([{"samaccountname": [b"WebApp01"]}], [])
    assert name_is_taken(asked, FACTS, "WebApp01$")
    assert not name_is_taken(asked, FACTS, "WebApp01$")
    assert filters(asked) == ["(sAMAccountName=WebApp01)"] * 2


def test_who_holds_a_service_principal_name() -> None:
    asked = connection(
        [{"samaccountname": [b"a$"]}, {"dn": [b"CN=b"]}, {"samaccountname": [b"\xff"]}]
    )
    assert accounts_with_service_principal_name(asked, FACTS, "http/*") == ("a$", "\ufffd")
    assert filters(asked) == [r"(servicePrincipalName=http/\2a)"]
