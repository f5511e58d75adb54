"""Entries with any values, by a connection that plays a controller: our error or sound facts."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from credspec.directory.accounts import find_account, read_key_version, read_managed_password
from credspec.directory.connection import Connection, Entry
from credspec.directory.domain import DomainFacts, read_domain_facts, read_trusted_domain
from credspec.errors import CredspecError

NAMES = (
    "defaultnamingcontext", "configurationnamingcontext", "rootdomainnamingcontext", "objectsid",
    "objectguid", "ncname", "dnsroot", "netbiosname", "samaccountname", "useraccountcontrol",
    "serviceprincipalname", "msds-groupmsamembership", "msds-managedpassword", "objectclass",
    "msds-keyversionnumber", "trustpartner",
)  # fmt: skip
SID = bytes.fromhex("010400000000000515000000") + bytes(12)
GOOD = {
    "defaultnamingcontext": b"DC=x,DC=test",
    "configurationnamingcontext": b"CN=Configuration,DC=x,DC=test",
    "rootdomainnamingcontext": b"DC=x,DC=test",
    "objectsid": SID,
    "objectguid": bytes(16),
    "ncname": b"DC=x,DC=test",
    "dnsroot": b"x.test",
    "netbiosname": b"X",
    "samaccountname": b"WebApp01$",
    "useraccountcontrol": b"4096",
    "msds-keyversionnumber": b"1",
}
FACTS = DomainFacts("x.test", "X", "x.test", "S-1-5-21-0-0-0", str(uuid.UUID(int=0)),
                    "DC=x,DC=test", "CN=Configuration,DC=x,DC=test")  # fmt: skip

hostile_values = st.binary(max_size=40) | st.sampled_from(
    [b"", b"\0", b"../../etc", b"a\nb", b"-1", b"9" * 30, "é".encode(), b"\xff\xfe", b"x\n[realms]"]
)


@st.composite
def entries(draw: st.DrawFn) -> list[Entry]:
    """Return up to three entries, sound but for some attributes, which hold anything or nothing."""
    found: list[Entry] = []
    for _ in range(draw(st.sampled_from((0, 1, 1, 1, 2, 3)))):
        values = {name: [value] for name, value in GOOD.items()} | {"dn": [b"CN=a,DC=x,DC=test"]}
        for name in draw(st.lists(st.sampled_from(NAMES), max_size=3)):
            values[name] = draw(st.lists(hostile_values, max_size=3))
        found.append(values)
    return found


class PlayedConnection:
    """Answers each search with the next list of entries, the last one again and again."""

    def __init__(self, answers: list[list[Entry]]) -> None:
        self._answers = answers

    def search(self, *_: object, **__: object) -> list[Entry]:
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    def send_search(self, *_: object, **__: object) -> Callable[[], list[Entry]]:
        return self.search


def asked(call: Callable[[Connection], Any], answers: list[list[Entry]]) -> Any:
    try:
        return call(cast("Connection", PlayedConnection(answers)))
    except CredspecError as error:
        assert "\n" not in str(error)
        assert error.code != "internal-error"
        return None


answers = st.lists(entries(), min_size=1, max_size=4)


@given(answers)
def test_domain_facts(given_answers: list[list[Entry]]) -> None:
    facts = asked(read_domain_facts, given_answers)
    if facts is not None:
        # They get into files, paths and filters.
        for name in (facts.dns_name, facts.forest):
            assert re.fullmatch(r"[a-z0-9_.-]{1,253}", name)
        assert re.fullmatch(r"S-1(-\d+)+", facts.sid)
        assert str(uuid.UUID(facts.guid)) == facts.guid


@given(answers)
def test_accounts(given_answers: list[list[Entry]]) -> None:
    account = asked(lambda c: find_account(c, FACTS, "WebApp01"), given_answers)
    if account is not None:
        assert not set(account.account_name) & set("/\\\0\n@")
        asked(lambda c: read_key_version(c, account), given_answers)


@given(answers)
def test_managed_passwords(given_answers: list[list[Entry]]) -> None:
    found = asked(lambda c: read_managed_password(c, FACTS, "WebApp01"), given_answers)
    if found is not None:
        assert found[0].account_name.lower() == "webapp01$"


@given(answers)
def test_trusts(given_answers: list[list[Entry]]) -> None:
    name = asked(lambda c: read_trusted_domain(c, FACTS, "OTHER"), given_answers)
    assert name is None or re.fullmatch(r"[a-z0-9_.-]{1,253}", name)
