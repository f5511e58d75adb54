"""Whose account a service's name belongs to: what a ticket of it opens (MS-ADTS 3.1.1.5.3.1.6)."""

from __future__ import annotations

from typing import Final, NamedTuple

from credspec.directory.connection import Connection, Entry, escape
from credspec.directory.domain import DomainFacts

_SERVER_TRUST: Final = 0x2000  # userAccountControl, MS-ADTS 2.2.16: a domain controller
_READ_ONLY_CONTROLLER: Final = 0x04000000
_SERVICE_ACCOUNTS: Final = frozenset(
    {"msds-groupmanagedserviceaccount", "msds-managedserviceaccount"}
    | {"msds-delegatedmanagedserviceaccount"}
)
_ATTRIBUTES: Final = ("sAMAccountName", "objectClass", "userAccountControl")
_MAPPINGS: Final = "sPNMappings"
_DIRECTORY_SERVICE: Final = "CN=Directory Service,CN=Windows NT,CN=Services,"


class ServiceOwner(NamedTuple):
    """The account that has a service's name, by its sAMAccountName.

    `is_machine` is whether it is a computer: a ticket of one of its services opens all of them,
    since the name in a ticket is not sealed. `is_controller` is whether it is a domain controller.
    """

    account: str
    is_machine: bool
    is_controller: bool


def find_service_owner(connection: Connection, facts: DomainFacts, spn: str) -> ServiceOwner | None:
    """Find the account with a service's name, also by an alias of ``HOST``; None if there is none.

    `spn` is ``CLASS/HOST[:PORT]``.
    """
    service_class, _, host = spn.partition("/")
    entry = _with_name(connection, facts, spn)
    if entry is None and service_class.lower() in _aliases_of_host(connection, facts):
        entry = _with_name(connection, facts, f"HOST/{host}")
    if entry is None:
        return None
    classes = {value.decode("ascii", "replace").lower() for value in entry.get("objectclass", ())}
    is_machine = "computer" in classes and not classes & _SERVICE_ACCOUNTS
    control = int((entry.get("useraccountcontrol") or [b"0"])[0])
    return ServiceOwner(
        (entry.get("samaccountname") or [b"?"])[0].decode("utf-8", "replace"),
        is_machine,
        is_machine and bool(control & (_SERVER_TRUST | _READ_ONLY_CONTROLLER)),
    )


def _with_name(connection: Connection, facts: DomainFacts, spn: str) -> Entry | None:
    found = connection.search(
        facts.naming_context, f"(servicePrincipalName={escape(spn)})", _ATTRIBUTES
    )
    return found[0] if found else None


def _aliases_of_host(connection: Connection, facts: DomainFacts) -> frozenset[str]:
    """Return the classes that count as ``HOST`` where an account has no name of its own for them.

    The forest keeps them as ``host=alerter,appmgmt,...``.
    """
    base = f"{_DIRECTORY_SERVICE}{facts.configuration_naming_context}"
    found = connection.search(base, "(objectClass=*)", (_MAPPINGS,), subtree=False)
    values = found[0].get(_MAPPINGS.lower(), ()) if found else ()
    texts = [value.decode("utf-8", "replace").lower() for value in values]
    return frozenset(
        name.strip()
        for target, equals, names in (text.partition("=") for text in texts)
        if equals and target.strip() == "host"
        for name in names.split(",")
    )
