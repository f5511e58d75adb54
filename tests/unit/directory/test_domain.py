"""Facts of a domain, by a connection that is simulated; hostile ones: test_hostile_answers.py."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, cast

import pytest

from credspec.directory.connection import Connection, Entry
from credspec.directory.domain import (
    DomainFacts,
    differences,
    read_domain_facts,
    read_trusted_domain,
)
from credspec.errors import CredspecError
from credspec.spec.document import DomainJoinConfig

GUID = uuid.UUID("87a0c4bc-14ce-4d19-baf6-4f370737562c")
SID = bytes.fromhex("010400000000000515000000") + b"".join(
    n.to_bytes(4, "little") for n in (11, 12, 13)
)
CHILD, FOREST = "DC=emea,DC=x,DC=test", "DC=x,DC=test"
CONFIGURATION = f"CN=Configuration,{FOREST}"
FACTS = DomainFacts(
    "emea.x.test", "EMEA", "x.test", "S-1-5-21-11-12-13", str(GUID), CHILD, CONFIGURATION
)


class Directory:
    """A controller of a child domain, which answers each search by its base."""

    def __init__(self) -> None:
        self.root: list[Entry] = [
            {
                "defaultnamingcontext": [CHILD.encode()],
                "configurationnamingcontext": [CONFIGURATION.encode()],
                "rootdomainnamingcontext": [FOREST.encode()],
            }
        ]
        self.head: list[Entry] = [{"objectsid": [SID], "objectguid": [GUID.bytes_le]}]
        self.references: list[Entry] = [
            reference(FOREST, "x.test", "X"),
            reference(CHILD, "emea.x.test", "EMEA"),
        ]
        self.trusts: list[Entry] = []
        self.asked: list[tuple[str, str]] = []

    def search(self, base: str, wanted: str, _: tuple[str, ...], *, subtree: bool = True) -> Any:
        self.asked.append((base, wanted))
        found = {
            ("", False): self.root,
            (CHILD, False): self.head,
            (f"CN=Partitions,{CONFIGURATION}", True): self.references,
            (f"CN=System,{CHILD}", True): self.trusts,
        }
        return found[base, subtree]

    def send_search(self, *given: Any, **options: Any) -> Callable[[], Any]:
        return lambda: self.search(*given, **options)


def reference(context: str, root: str, netbios: str) -> Entry:
    return {"ncname": [context.encode()], "dnsroot": [root.encode()],
            "netbiosname": [netbios.encode()]}  # fmt: skip


def read(directory: Directory, asked: str | None = "emea.x.test") -> DomainFacts:
    return read_domain_facts(cast("Connection", directory), asked)


def test_the_facts_are_the_domains_and_the_forests_name_its_roots() -> None:
    directory = Directory()
    assert read(directory) == FACTS
    assert FACTS.realm == "EMEA.X.TEST"
    (_, wanted) = next(asked for asked in directory.asked if asked[0].startswith("CN=Partitions"))
    assert f"(nCName={CHILD})" in wanted
    assert f"(nCName={FOREST})" in wanted


@pytest.mark.parametrize("attribute", ["objectsid", "objectguid"])
@pytest.mark.parametrize(
    ("values", "code"),
    [
        ([], "domain-facts-missing"),
        ([SID, SID], "domain-facts-malformed"),
        ([b"x"], "sid-malformed|domain-facts-malformed"),
    ],
)
def test_what_the_domain_says_of_itself_is_there_once_and_sound(
    attribute: str, values: list[bytes], code: str
) -> None:
    directory = Directory()
    directory.head[0][attribute] = values
    with pytest.raises(CredspecError, match=code):
        read(directory)


@pytest.mark.parametrize("name", ["root", "head"])
@pytest.mark.parametrize("number", [0, 2])
def test_one_entry_and_no_more(name: str, number: int) -> None:
    directory = Directory()
    setattr(directory, name, getattr(directory, name) * number)
    with pytest.raises(CredspecError, match="domain-facts-missing"):
        read(directory)


@pytest.mark.parametrize("missing", [0, 1])
def test_domain_and_forest_are_both_in_the_configuration(missing: int) -> None:
    directory = Directory()
    del directory.references[missing]
    with pytest.raises(CredspecError, match=r"crossRef.*domain-facts-missing"):
        read(directory)


@pytest.mark.parametrize("netbios", ["", "A" * 16, "a/b", "a.b", "a\nb"])
def test_netbios_names_that_are_none(netbios: str) -> None:
    directory = Directory()
    directory.references[1] = reference(CHILD, "emea.x.test", netbios)
    with pytest.raises(CredspecError, match="domain-facts-malformed"):
        read(directory)


def test_a_trust_goes_before_the_forests_own_domains() -> None:
    directory = Directory()
    connection = cast("Connection", directory)
    directory.references = [reference(FOREST, "x.test", "X")]
    assert read_trusted_domain(connection, FACTS, "X") == "x.test"
    directory.trusts = [{"trustpartner": [b"Other.Example."]}]
    assert read_trusted_domain(connection, FACTS, "X*") == "other.example"
    assert directory.asked[-1] == (
        f"CN=System,{CHILD}",
        r"(&(objectClass=trustedDomain)(flatName=X\2a))",
    )
    directory.trusts, directory.references = [], []
    assert read_trusted_domain(connection, FACTS, "X") is None
    directory.trusts = [{"trustpartner": [b"../x"]}]
    with pytest.raises(CredspecError, match="domain-facts-malformed"):
        read_trusted_domain(connection, FACTS, "X")


SAME = {
    "sid": FACTS.sid,
    "guid": FACTS.guid,
    "dns_name": FACTS.dns_name,
    "dns_tree_name": FACTS.forest,
    "net_bios_name": FACTS.netbios_name,
}


def found(**changes: str | None) -> tuple[list[str], list[str]]:
    """Return the codes of errors and of warnings about a spec that differs in some fields."""
    config = DomainJoinConfig(**cast("dict[str, Any]", SAME | changes))
    errors, warnings = differences(config, FACTS)
    return [each.code for each in errors], [each.code for each in warnings]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sid": None, "guid": None, "dns_tree_name": None, "net_bios_name": None},
        {"sid": FACTS.sid.lower(), "guid": "{" + FACTS.guid.upper() + "}"},
        {"dns_name": "EMEA.x.Test", "dns_tree_name": "X.TEST", "net_bios_name": "emea"},
    ],
)
def test_a_spec_of_the_domain_differs_in_nothing(changes: dict[str, str | None]) -> None:
    assert found(**changes) == ([], [])


@pytest.mark.parametrize(
    ("changes", "errors", "warnings"),
    [
        ({"sid": "S-1-5-21-11-12-14"}, ["spec-domain-sid-differs"], []),
        ({"sid": FACTS.sid + "1"}, ["spec-domain-sid-differs"], []),
        ({"sid": FACTS.sid + "-1104"}, [], ["spec-domain-sid-of-account"]),
        ({"guid": str(uuid.UUID(int=1))}, ["spec-domain-guid-differs"], []),
        ({"dns_name": "x.test"}, [], ["spec-domain-name-differs"]),
        ({"dns_tree_name": "emea.x.test"}, [], ["spec-domain-name-differs"]),
        ({"net_bios_name": "X"}, [], ["spec-domain-name-differs"]),
        (
            {"sid": "S-1-5-21-1-2-3", "guid": str(uuid.UUID(int=1)), "net_bios_name": "X"},
            ["spec-domain-sid-differs", "spec-domain-guid-differs"],
            ["spec-domain-name-differs"],
        ),
    ],
)
def test_what_differs_is_named_and_only_sid_and_guid_are_errors(
    changes: dict[str, str], errors: list[str], warnings: list[str]
) -> None:
    assert found(**changes) == (errors, warnings)


def test_a_difference_says_both_values_and_where() -> None:
    config = DomainJoinConfig(**cast("dict[str, Any]", SAME | {"net_bios_name": "OLD"}))
    _, (warning,) = differences(config, FACTS)
    assert (warning.where, warning.found, warning.expected) == (
        "/DomainJoinConfig/NetBiosName",
        "OLD",
        "EMEA",
    )
