"""Addresses in a lab's DNS zones, changed in the database of a controller that does not run.

Records are those of [MS-DNSP] 2.3.2.2 (DNS_RPC_RECORD), as Samba and Active Directory store them.
"""

from __future__ import annotations

import base64
import ipaddress
import struct
from collections.abc import Iterator
from typing import Final

from credspec.lab.domain import Lab, run_tool

_TYPE_A: Final = 1
_VERSION: Final = 5
_RANK_ZONE: Final = 0xF0
_TTL_SECONDS: Final = 900
_HEADER: Final = struct.Struct("<HHBBHI4s8x")


def address_record(address: str) -> bytes:
    """Return the stored form of an A record that does not age."""
    data = ipaddress.IPv4Address(address).packed
    ttl = _TTL_SECONDS.to_bytes(4, "big")
    return _HEADER.pack(len(data), _TYPE_A, _VERSION, _RANK_ZONE, 0, 1, ttl) + data


def with_address(record: bytes, old: str, new: str) -> bytes:
    """Return a stored record with `new` for the address `old`; any other as it is."""
    if len(record) != _HEADER.size + 4 or _HEADER.unpack_from(record)[1] != _TYPE_A:
        return record
    if record[_HEADER.size :] != ipaddress.IPv4Address(old).packed:
        return record
    return record[: _HEADER.size] + ipaddress.IPv4Address(new).packed


def add_host(lab: Lab, name: str) -> None:
    """Let the domain's zone name a host at the controller's address.

    Raises:
        CredspecError: `lab-samba-tool`.
    """
    zone = f"DC={lab.dns_domain},CN=MicrosoftDNS,DC=DomainDnsZones,{lab.domain_dn}"
    record = base64.b64encode(address_record(lab.dc_address)).decode()
    ldif = f"dn: DC={name},{zone}\nobjectClass: top\nobjectClass: dnsNode\ndnsRecord:: {record}\n"
    run_tool(["ldbadd", "-H", lab.database], ldif)


def move_addresses(lab: Lab, old: str, new: str) -> None:
    """Replace an address in all records of the domain's and the forest's zones.

    Raises:
        CredspecError: `lab-samba-tool`.
    """
    changes = []
    for partition in ("DomainDnsZones", "ForestDnsZones"):
        search = ["ldbsearch", "-H", lab.database, "-b", f"DC={partition},{lab.domain_dn}"]
        for dn, records in _entries(run_tool([*search, "(dnsRecord=*)", "dnsRecord"])):
            moved = [with_address(record, old, new) for record in records]
            if moved != records:
                values = (f"dnsRecord:: {base64.b64encode(value).decode()}\n" for value in moved)
                change = f"{dn}\nchangetype: modify\nreplace: dnsRecord\n"
                changes.append(change + "".join(values))
    if changes:
        run_tool(["ldbmodify", "-H", lab.database], "\n".join(changes))


def _entries(ldif: str) -> Iterator[tuple[str, list[bytes]]]:
    """Yield the line of the name and the records of each entry that has some."""
    for entry in ldif.replace("\n ", "").split("\n\n"):
        lines = [line for line in entry.splitlines() if not line.startswith("#")]
        names = [line for line in lines if line.startswith("dn:")]
        records = [
            base64.b64decode(line.removeprefix("dnsRecord:: "))
            for line in lines
            if line.startswith("dnsRecord:: ")
        ]
        if names and records:
            yield names[0], records
