"""What a domain says of itself: the facts a credential spec holds about it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from credspec.directory.connection import Connection, Entry, escape
from credspec.directory.locator import valid_domain
from credspec.directory.security_identifier import sid_to_text
from credspec.errors import CredspecError, Problem, UsageError
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


def read_domain_facts(connection: Connection) -> DomainFacts:
    """Read the facts of the connection's domain (MS-ADTS 3.1.1.3.2, 6.1.1.2.1).

    Raises:
        CredspecError: `domain-facts-missing` if the answer lacks one of them, `sid-malformed`,
            `domain-facts-malformed` if one has another form.
    """
    contexts = ("defaultNamingContext", "configurationNamingContext", "rootDomainNamingContext")
    root = _only(connection.search("", "(objectClass=*)", contexts, subtree=False), "rootDSE")
    domain_nc, configuration_nc, forest_nc = (_text(root, name) for name in contexts)
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
    by_context = {_text(entry, "nCName").lower(): entry for entry in asked_references()}
    domain = by_context.get(domain_nc.lower())
    forest = by_context.get(forest_nc.lower())
    if domain is None or forest is None:
        raise _missing("crossRef of the domain or of the forest root")
    try:
        # They become part of paths, files and filters.
        dns_name, forest_name = (valid_domain(_text(e, "dnsRoot")) for e in (domain, forest))
        guid = uuid.UUID(bytes_le=_value(head, "objectGUID"))
    except (UsageError, ValueError):
        raise _malformed("a DNS name or a GUID") from None
    return DomainFacts(
        dns_name=dns_name,
        netbios_name=_text(domain, "nETBIOSName"),
        forest=forest_name,
        sid=sid_to_text(_value(head, "objectSid")),
        guid=str(guid),
        naming_context=domain_nc,
        configuration_naming_context=configuration_nc,
    )


def read_trusted_domain(
    connection: Connection, facts: DomainFacts, netbios_name: str
) -> str | None:
    """Return the DNS name of another domain, None if neither forest nor trusts have one so named.

    The domains of a forest trust each other (MS-ADTS 6.1.1.2.1); others are in trusted domain
    objects (MS-ADTS 6.1.6.7).

    Raises:
        CredspecError: `domain-facts-malformed`; and as the connection raises.
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
        found = connection.search(base, wanted, (attribute,))
        if found:
            try:
                return valid_domain(_text(found[0], attribute))
            except UsageError:
                raise _malformed("a trusted domain's name") from None
    return None


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
        "the spec was made for another domain of that name: make it anew with New-CredentialSpec "
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
    return values[0]


def _text(entry: Entry, attribute: str) -> str:
    return _value(entry, attribute).decode("utf-8", "replace")


def _malformed(what: str) -> CredspecError:
    return CredspecError.of(
        "domain-facts-malformed",
        f"the domain controller returned {what} that is none",
        where="domain",
    )


def _missing(what: str) -> CredspecError:
    return CredspecError.of(
        "domain-facts-missing", f"the domain controller did not return {what}", where="domain"
    )
