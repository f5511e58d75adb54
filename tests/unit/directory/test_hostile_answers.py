"""Entries with any values, by a connection that is simulated: our error or sound facts."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.directory.accounts import find_account, read_key_version, read_managed_password
from credspec.directory.connection import Connection, Entry
from credspec.directory.domain import (
    DomainFacts,
    check_netbios_name,
    read_domain_facts,
    read_trusted_domain,
)
from credspec.directory.domain_names import is_netbios_name, naming_context_to_dns
from credspec.directory.managed_password import ManagedPassword
from credspec.errors import CredspecError, NotFoundError, NotPermittedError

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


class SimulatedConnection:
    """Answers each search with the next list of entries, the last one again and again."""

    def __init__(self, answers: list[list[Entry]]) -> None:
        self._answers = answers

    def search(self, *_: object, **__: object) -> list[Entry]:
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    def send_search(self, *_: object, **__: object) -> Callable[[], list[Entry]]:
        return self.search


def asked(call: Callable[[Connection], Any], answers: list[list[Entry]]) -> Any:
    try:
        return call(cast("Connection", SimulatedConnection(answers)))
    except CredspecError as error:
        assert "\n" not in str(error)
        assert error.code != "internal-error"
        return None


answers = st.lists(entries(), min_size=1, max_size=4)


def sound(**changes: list[bytes]) -> Entry:
    """Return an entry that is sound but for some attributes."""
    return (
        {name: [value] for name, value in GOOD.items()} | {"dn": [b"CN=a,DC=x,DC=test"]} | changes
    )


def test_sound_answers_are_taken() -> None:
    """Each of the readers below takes what an honest controller says; else none could fail."""
    facts = asked(lambda c: read_domain_facts(c, "x.test"), [[sound()]])
    assert (facts.dns_name, facts.netbios_name, facts.forest) == ("x.test", "X", "x.test")
    assert (facts.sid, facts.guid) == ("S-1-5-21-0-0-0", str(uuid.UUID(int=0)))
    account = asked(lambda c: find_account(c, FACTS, "WebApp01"), [[sound()]])
    assert (account.account_name, account.enabled) == ("WebApp01$", True)
    assert account.is_workstation_trust
    assert asked(lambda c: read_key_version(c, account), [[sound()]]) == 1
    password = ManagedPassword(b"a" * 256, None, timedelta(1), timedelta(1))
    with_password = sound(**{"msds-managedpassword": [password.pack()]})
    found = asked(lambda c: read_managed_password(c, FACTS, "WebApp01"), [[with_password]])
    assert found == (account, password)
    trust = [[sound(trustpartner=[b"Other.test"])]]
    assert asked(lambda c: read_trusted_domain(c, FACTS, "OTHER"), trust) == "other.test"


@pytest.mark.parametrize("said", [b"Other$", b"WebApp0$", b"WebApp011$", b"xWebApp01$"])
def test_the_password_of_another_account_is_not_used(said: bytes) -> None:
    blob = ManagedPassword(b"a" * 256, None, timedelta(1), timedelta(1)).pack()
    entry = sound(**{"samaccountname": [said], "msds-managedpassword": [blob]})
    connection = cast("Connection", SimulatedConnection([[entry]]))
    with pytest.raises(CredspecError, match="account-malformed"):
        read_managed_password(connection, FACTS, "WebApp01")


@pytest.mark.parametrize(
    ("flags", "enabled", "workstation"),
    [(b"4096", True, True), (b"4098", False, True), (b"514", False, False), (b"512", True, False)],
)
def test_what_an_accounts_flags_say(flags: bytes, *, enabled: bool, workstation: bool) -> None:
    entry = sound(useraccountcontrol=[flags], serviceprincipalname=[b"http/a", b"http/b"])
    account = asked(lambda c: find_account(c, FACTS, "WebApp01"), [[entry]])
    assert (account.enabled, account.is_workstation_trust) == (enabled, workstation)
    assert account.service_principal_names == ("http/a", "http/b")


@pytest.mark.parametrize(
    ("classes", "code", "text"),
    [
        ([], "account-not-found", "no group managed service account"),
        ([b"top", b"user", b"Computer"], "account-wrong-class", "is a computer"),
        ([b"top", b"user"], "account-wrong-class", "is a user"),
        ([b"group"], "account-wrong-class", "is a group"),
        (
            [b"user", b"computer", b"msDS-ManagedServiceAccount"],
            "account-wrong-class",
            "standalone",
        ),
        ([b"\xff"], "account-not-found", "no group managed service account"),
    ],
)
def test_what_is_there_instead_of_the_account(classes: list[bytes], code: str, text: str) -> None:
    others = [sound(objectclass=classes)] if classes else []
    connection = cast("Connection", SimulatedConnection([[], others]))
    with pytest.raises(NotFoundError, match=rf"{text}.*\[{code}\]"):
        find_account(connection, FACTS, "WebApp01")


@pytest.mark.parametrize(
    ("name", "is_there"),
    [
        ("X\\WebApp01", True),
        ("x\\WebApp01$", True),
        ("OTHER\\WebApp01", False),
        ("WebApp01@x.test", True),
        ("WebApp01@elsewhere.example", True),  # an explicit name may have any suffix
    ],
)
def test_an_account_is_of_the_domain_that_its_name_says(name: str, *, is_there: bool) -> None:
    connection = cast("Connection", SimulatedConnection([[sound()]]))
    if is_there:
        assert find_account(connection, FACTS, name).account_name == "WebApp01$"
    else:
        with pytest.raises(NotFoundError, match="account-other-domain"):
            find_account(connection, FACTS, name)


@pytest.mark.parametrize("values", [[], [b""], [b"x"], [b"-1"], [b"1.0"]])
def test_a_key_version_that_is_no_number(values: list[bytes]) -> None:
    account = asked(lambda c: find_account(c, FACTS, "WebApp01"), [[sound()]])
    entry = sound(**{"msds-keyversionnumber": values})
    for found in ([entry], []):
        connection = cast("Connection", SimulatedConnection([found]))
        with pytest.raises(CredspecError, match="key-version-missing"):
            read_key_version(connection, account)


@given(answers)
def test_domain_facts(given_answers: list[list[Entry]]) -> None:
    facts = asked(lambda c: read_domain_facts(c, "x.test"), given_answers)
    if facts is not None:
        assert facts.dns_name == naming_context_to_dns(facts.naming_context) == "x.test"
        assert is_netbios_name(facts.netbios_name)
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


ROOT = {name: [GOOD[name]] for name in NAMES[:3]}
HEAD = {"objectsid": [SID], "objectguid": [bytes(16)]}
domains = st.sampled_from(["x.test", "home.test", "x.home.test", "test", "X.TEST.", "xx.test"])
netbios_names = st.sampled_from(["X", "HOME", "x.test", "home.test", "", "X" * 16])


def dn(domain: str) -> bytes:
    return b",".join(b"DC=" + part.encode() for part in domain.removesuffix(".").split("."))


@st.composite
def directories(draw: st.DrawFn) -> list[list[Entry]]:
    """Return what a controller says of itself that calls domains as it likes, perhaps twice."""
    own, forest = draw(domains), draw(domains)
    root = {
        "defaultnamingcontext": [dn(own)],
        "rootdomainnamingcontext": [dn(forest)],
        "configurationnamingcontext": [b"CN=Configuration," + dn(forest)],
    }
    references: list[Entry] = [
        {
            "ncname": [dn(draw(st.sampled_from([own, forest])))],
            "dnsroot": [draw(domains).encode() for _ in range(draw(st.sampled_from((1, 1, 1, 2))))],
            "netbiosname": [draw(netbios_names).encode()],
        }
        for _ in range(draw(st.integers(0, 3)))
    ]
    honest: list[Entry] = [
        {"ncname": [dn(each)], "dnsroot": [each.encode()], "netbiosname": [b"X"]}
        for each in sorted({own, forest})
    ]
    asked_first = draw(st.booleans())
    references = draw(st.sampled_from([honest, references, [*references, *honest]]))
    return [[root], references, [HEAD]] if asked_first else [[root], [HEAD], references]


@given(directories(), domains)
def test_a_domain_is_never_called_by_another_ones_name(
    given_answers: list[list[Entry]], wanted: str
) -> None:
    """The facts are of the domain that was asked, or there are none."""
    facts = asked(lambda c: read_domain_facts(c, wanted), given_answers)
    if facts is not None:
        assert facts.dns_name == wanted.lower().removesuffix(".")
        assert facts.realm == facts.dns_name.upper()
        assert naming_context_to_dns(facts.naming_context) == facts.dns_name
        assert is_netbios_name(facts.netbios_name)


def reference(context: str, root: str, netbios: str = "X") -> Entry:
    return {"ncname": [dn(context)], "dnsroot": [root.encode()], "netbiosname": [netbios.encode()]}


@pytest.mark.parametrize(
    ("wanted", "references", "code"),
    [
        ("x.test", [reference("x.test", "x.test")], None),
        (None, [reference("x.test", "x.test")], None),
        ("X.TEST.", [reference("x.test", "X.Test")], None),
        ("home.test", [reference("x.test", "x.test")], "domain-facts-other-domain"),
        ("x.test", [reference("x.test", "home.test")], "domain-facts-other-domain"),
        ("home.test", [reference("x.test", "home.test")], "domain-facts-other-domain"),
        (None, [reference("x.test", "home.test")], "domain-facts-other-domain"),
        (
            "x.test",
            [reference("x.test", "x.test"), reference("x.test", "home.test")],
            "domain-facts-malformed",
        ),
        (
            "x.test",
            [reference("x.test", "x.test"), reference("X.Test", "x.test")],
            "domain-facts-malformed",
        ),
        ("x.test", [reference("home.test", "x.test")], "domain-facts-missing"),
        ("x.test", [reference("x.test", "x.test", "home.test")], "domain-facts-malformed"),
    ],
)
def test_who_may_say_what_a_domain_is_called(
    wanted: str | None, references: list[Entry], code: str | None
) -> None:
    # Answers are waited for in this order: the domain's head, then the references.
    connection = cast("Connection", SimulatedConnection([[ROOT], [HEAD], references]))
    if code is None:
        assert read_domain_facts(connection, wanted).dns_name == "x.test"
        return
    with pytest.raises(CredspecError, match=rf"\[{code}\]"):
        read_domain_facts(connection, wanted)


@given(st.lists(domains, min_size=2, max_size=4))
def test_one_netbios_name_of_several_domains_is_nobodys(names: list[str]) -> None:
    found: list[Entry] = [{"trustpartner": [each.encode()]} for each in names]
    name = asked(lambda c: read_trusted_domain(c, FACTS, "OTHER"), [found])
    distinct = {each.lower().removesuffix(".") for each in names}
    assert name == (distinct.pop() if len(distinct) == 1 else None)


@given(netbios_names, netbios_names)
def test_a_domain_confirms_its_netbios_name(own: str, said: str) -> None:
    """Whatever another domain says, a name stands for a domain that calls itself so."""
    facts = DomainFacts("home.test", own, "home.test", FACTS.sid, FACTS.guid, "DC=home,DC=test",
                        FACTS.configuration_naming_context)  # fmt: skip
    if own.lower() == said.lower():
        check_netbios_name(facts, said, "x.test")
    else:
        with pytest.raises(NotPermittedError, match="domain-netbios-name-differs"):
            check_netbios_name(facts, said, "x.test")
