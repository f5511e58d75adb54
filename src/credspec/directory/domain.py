"""What a domain says of itself: the facts a credential spec holds about it.

A controller is believed about its own domain only, which is the one it was located as. What it says
about another domain's name is a hint, which that domain has to confirm: see `check_netbios_name`.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from credspec.directory.connection import Connection, Entry, escape
from credspec.directory.domain_names import is_netbios_name, naming_context_to_dns
from credspec.directory.locator import valid_domain
from credspec.directory.security_identifier import sid_to_text
from credspec.errors import (
    CredspecError,
    NotPermittedError,
    PermanentFaultError,
    Problem,
    UsageError,
)
from credspec.spec.document import DomainJoinConfig


@dataclass(frozen=True, slots=True)
class DomainFacts:
    """A domain as its controller describes it.

    `dns_name` and `netbios_name` name the domain, `forest` the forest's root domain; `sid` is the
    domain's SID in text form, `guid` the GUID of the domain object in lower case without braces;
    `naming_context` is the DN of the domain, `configuration_naming_context` that of the forest's
    configuration.
    """

    dns_name: str
    netbios_name: str
    forest: str
    sid: str
    guid: str
    naming_context: str
    configuration_naming_context: str

    @property
    def realm(self) -> str:
        """The Kerberos realm: the DNS name in upper case."""
        return self.dns_name.upper()


def read_domain_facts(connection: Connection, asked: str | None = None) -> DomainFacts:
    """Read the facts of the connection's domain (MS-ADTS 3.1.1.3.2, 6.1.1.2.1).

    `asked` is the DNS name under which the controller was located; None if it may be any domain's.
    The DNS name of a domain is what the DC= parts of its naming context say (MS-ADTS 3.1.1.1.5), so
    a crossRef that says something else is refused.

    Raises:
        NotPermittedError: `domain-facts-other-domain` if the controller is of another domain than
            `asked`, or its directory gives the domain another name than its own.
        CredspecError: `domain-facts-missing` if the answer lacks one of them, `sid-malformed`,
            `domain-facts-malformed` if one has another form or is there more than once.
    """
    contexts = ("defaultNamingContext", "configurationNamingContext", "rootDomainNamingContext")
    root = _only(connection.search("", "(objectClass=*)", contexts, subtree=False), "rootDSE")
    domain_nc, configuration_nc, forest_nc = (_text(root, name) for name in contexts)
    own_name, forest_name = map(_named_by, (domain_nc, forest_nc))
    if asked is not None and own_name != valid_domain(asked):
        raise _other_domain_answers(own_name, domain_nc, valid_domain(asked))
    asked_head = connection.send_search(
        domain_nc, "(objectClass=*)", ("objectSid", "objectGUID"), subtree=False
    )
    wanted = "".join(f"(nCName={escape(dn)})" for dn in sorted({domain_nc, forest_nc}))
    asked_references = connection.send_search(
        f"CN=Partitions,{configuration_nc}",
        f"(&(objectClass=crossRef)(|{wanted}))",
        ("nCName", "dnsRoot", "nETBIOSName"),
    )
    head = _only(asked_head(), domain_nc)
    references = asked_references()
    domain = _cross_reference(references, domain_nc, own_name)
    _cross_reference(references, forest_nc, forest_name)
    netbios_name = _text(domain, "nETBIOSName")
    if not is_netbios_name(netbios_name):
        raise _malformed("a NetBIOS name", repr(netbios_name[:80]))
    try:
        guid = uuid.UUID(bytes_le=_value(head, "objectGUID"))
    except ValueError:
        raise _malformed("a GUID", "another length") from None
    return DomainFacts(
        dns_name=own_name,
        netbios_name=netbios_name,
        forest=forest_name,
        sid=sid_to_text(_value(head, "objectSid")),
        guid=str(guid),
        naming_context=domain_nc,
        configuration_naming_context=configuration_nc,
    )


def _named_by(naming_context: str) -> str:
    """Return the DNS name that a domain's naming context says."""
    name = naming_context_to_dns(naming_context)
    if name is None:
        # It becomes part of paths, files and filters.
        raise _malformed("the naming context of a domain", repr(naming_context[:80]))
    return name


def _cross_reference(references: Sequence[Entry], naming_context: str, dns_name: str) -> Entry:
    """Return the one crossRef of a naming context, which must name the domain as that does."""
    found = [e for e in references if _text(e, "nCName").lower() == naming_context.lower()]
    if not found:
        raise _missing("crossRef of the domain or of the forest root")
    if len(found) > 1:
        names = " and ".join(repr(_text(e, "dnsRoot")[:80]) for e in found)
        raise _malformed(f"one crossRef of {naming_context[:80]}", f"{len(found)}: {names}")
    root = _text(found[0], "dnsRoot")
    if root.lower().removesuffix(".") != dns_name:
        raise _other_domain_answers(repr(root[:80]), naming_context, dns_name)
    return found[0]


def _other_domain_answers(found: str, naming_context: str, asked: str) -> NotPermittedError:
    return NotPermittedError.of(
        "domain-facts-other-domain",
        f"the domain controller says that it is of {found} ({naming_context[:80]})",
        where=f"domain {asked}",
        expected=f"a controller of {asked}, whose directory calls it so",
        remedy=f"check the DNS records _ldap._tcp.dc._msdcs.{asked}, and the crossRef objects "
        "below CN=Partitions in the configuration of its forest",
    )


def read_trusted_domain(
    connection: Connection, facts: DomainFacts, netbios_name: str
) -> str | None:
    """Return the DNS name of another domain, None if neither forest nor trusts have one so named.

    The domains of a forest trust each other (MS-ADTS 6.1.1.2.1); others are in trusted domain
    objects (MS-ADTS 6.1.6.7). It is what the connection's domain says of another one: use it only
    after `check_netbios_name` with what that one says.

    Raises:
        CredspecError: `domain-facts-malformed`, also if several domains are so named; and as the
            connection raises.
    """
    name = escape(netbios_name)
    for base, wanted, attribute in (
        (
            f"CN=System,{facts.naming_context}",
            f"(&(objectClass=trustedDomain)(flatName={name}))",
            "trustPartner",
        ),
        (
            f"CN=Partitions,{facts.configuration_naming_context}",
            f"(&(objectClass=crossRef)(nETBIOSName={name}))",
            "dnsRoot",
        ),
    ):
        try:
            names = {
                valid_domain(_text(entry, attribute))
                for entry in connection.search(base, wanted, (attribute,))
            }
        except UsageError:
            raise _malformed("a trusted domain's name", "another form") from None
        if len(names) > 1:
            found = " and ".join(sorted(names))
            raise _malformed(f"one domain with the NetBIOS name {netbios_name[:80]!r}", found)
        if names:
            return names.pop()
    return None


def check_netbios_name(facts: DomainFacts, netbios_name: str, said_by: str) -> None:
    """Refuse a domain that does not itself have the NetBIOS name by which another one found it.

    `facts` are what the domain so found says of itself, `said_by` is the domain that was asked.
    Otherwise the administrators of a trusted domain could let a name stand for any domain.

    Raises:
        NotPermittedError: `domain-netbios-name-differs`.
    """
    if facts.netbios_name.lower() != netbios_name.lower():
        raise NotPermittedError.of(
            "domain-netbios-name-differs",
            f"{said_by} says that {netbios_name[:80]!r} is {facts.dns_name}, whose own NetBIOS "
            f"name is {facts.netbios_name!r}",
            where=f"domain {netbios_name[:80]}",
            expected="the same NetBIOS name in both domains",
            remedy="give the DNS name of the account's domain in its scope, and check the trusts "
            f"and the crossRef objects of {said_by}",
        )


def differences(
    config: DomainJoinConfig, facts: DomainFacts
) -> tuple[tuple[Problem, ...], tuple[Problem, ...]]:
    """Compare what a spec says of its domain with what the domain says of itself.

    Returns errors, with which the spec is about another domain (`spec-domain-sid-differs`,
    `spec-domain-guid-differs`), and warnings (`spec-domain-name-differs`,
    `spec-domain-sid-of-account`). Fields that the spec leaves out are not compared.
    """
    errors: list[Problem] = []
    warnings: list[Problem] = []
    sid = (config.sid or facts.sid).upper()
    if sid.startswith(f"{facts.sid.upper()}-"):
        warnings.append(
            _difference("spec-domain-sid-of-account", "Sid", sid, facts.sid, "leave its end out")
        )
    elif sid != facts.sid.upper():
        errors.append(_other_domain("Sid", config.sid, facts.sid, facts))
    if config.guid and config.guid.strip("{}").lower() != facts.guid:
        errors.append(_other_domain("Guid", config.guid, facts.guid, facts))
    names = (
        ("DnsName", config.dns_name, facts.dns_name),
        ("DnsTreeName", config.dns_tree_name, facts.forest),
        ("NetBiosName", config.net_bios_name, facts.netbios_name),
    )
    warnings += [
        _difference("spec-domain-name-differs", field, found, actual, "correct it")
        for field, found, actual in names
        if found and found.lower() != actual.lower()
    ]
    return tuple(errors), tuple(warnings)


def _other_domain(field: str, found: str | None, actual: str, facts: DomainFacts) -> Problem:
    return _difference(
        f"spec-domain-{field.lower()}-differs",
        field,
        f"{found}, which is not the one of {facts.dns_name}",
        actual,
        "the spec was made for another domain of that name: make it again with New-CredentialSpec "
        "(Windows: error 1787)",
    )


def _difference(code: str, field: str, found: str, expected: str, remedy: str) -> Problem:
    return Problem(
        code=code,
        where=f"/DomainJoinConfig/{field}",
        found=found,
        expected=expected,
        remedy=remedy,
    )


def _only(entries: list[Entry], name: str) -> Entry:
    if len(entries) != 1:
        raise _missing(name)
    return entries[0]


def _value(entry: Entry, attribute: str) -> bytes:
    values = entry.get(attribute.lower())
    if not values:
        raise _missing(attribute)
    if len(values) > 1:
        raise _malformed(f"one {attribute}", f"{len(values)} values")
    return values[0]


def _text(entry: Entry, attribute: str) -> str:
    return _value(entry, attribute).decode("utf-8", "replace")


def _malformed(expected: str, found: str) -> CredspecError:
    return PermanentFaultError.of(
        "domain-facts-malformed",
        f"the domain controller returned {found}",
        where="domain",
        expected=expected,
    )


def _missing(what: str) -> CredspecError:
    return CredspecError.of(
        "domain-facts-missing", f"the domain controller did not return {what}", where="domain"
    )
