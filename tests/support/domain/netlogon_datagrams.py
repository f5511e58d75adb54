"""Answers to the LDAP ping, written independently of the code that reads them."""

from __future__ import annotations

import struct
import uuid
from typing import Any

from credspec.directory.netlogon_ping import ControllerFlag, NetlogonAnswer

GUID = uuid.UUID("87a0c4bc-14ce-4d19-baf6-4f370737562c")
V5EX = 5
WRITABLE = ControllerFlag.LDAP | ControllerFlag.DIRECTORY | ControllerFlag.WRITABLE


def answer(**changes: Any) -> NetlogonAnswer:
    """The answer of a usable controller of a.test in another site than the client's."""
    fields: dict[str, Any] = {
        "flags": WRITABLE,
        "domain_guid": GUID,
        "forest": "a.test",
        "domain": "a.test",
        "host": "dc1.a.test",
        "netbios_domain": "A",
        "netbios_host": "DC1",
        "controller_site": "Far",
        "client_site": "Near",
    }
    return NetlogonAnswer(**{**fields, **changes})


def tlv(tag: int, content: bytes, *, long_form: bool = False) -> bytes:
    size = len(content)
    if size < 0x80 and not long_form:
        return bytes([tag, size]) + content
    return bytes([tag, 0x84]) + struct.pack(">I", size) + content


def value_of(
    said: NetlogonAnswer, *, compress: bool = True, socket_address: bytes | None = None
) -> bytes:
    """The NETLOGON_SAM_LOGON_RESPONSE_EX of an answer (MS-ADTS 6.3.1.9)."""
    opcode = 24 if said.is_paused else 23
    value = struct.pack("<HHI", opcode, 0, said.flags) + said.domain_guid.bytes_le
    seen: dict[tuple[str, ...], int] = {}

    def name(text: str) -> bytes:
        written = b""
        labels = tuple(text.split(".")) if text else ()
        while labels:
            if compress and labels in seen:
                return written + struct.pack(">H", 0xC000 | seen[labels])
            seen[labels] = len(value) + len(written)
            label = labels[0].encode()
            written += bytes([len(label)]) + label
            labels = labels[1:]
        return written + b"\0"

    for text in (
        *(said.forest, said.domain, said.host, said.netbios_domain, said.netbios_host),
        *("", said.controller_site, said.client_site),
    ):
        value += name(text)
    if socket_address is not None:
        value += bytes([len(socket_address)]) + socket_address
    if said.next_closest_site:
        value += name(said.next_closest_site)
    version = V5EX | (8 if socket_address is not None else 0)
    return value + struct.pack("<IHH", version, 0xFFFF, 0xFFFF)


def entry_of(value: bytes, message_id: int, *, long_form: bool = False) -> bytes:
    """The LDAP message with a search entry of one NetLogon value."""

    def part(tag: int, *contents: bytes) -> bytes:
        return tlv(tag, b"".join(contents), long_form=long_form)

    values = part(0x31, part(0x04, value))
    attributes = part(0x30, part(0x30, part(0x04, b"netlogon"), values))
    number = part(0x02, message_id.to_bytes(4, "big"))
    return part(0x30, number, part(0x64, part(0x04), attributes))


def done(message_id: int, code: int = 0) -> bytes:
    """The LDAP message that ends a search."""
    number = tlv(0x02, message_id.to_bytes(4, "big"))
    return tlv(0x30, number + tlv(0x65, tlv(0x0A, bytes([code])) + tlv(4, b"") + tlv(4, b"")))


def datagram_of(said: NetlogonAnswer, message_id: int) -> bytes:
    """What a controller sends: entry and result in one datagram."""
    return entry_of(value_of(said), message_id) + done(message_id)


def message_id_of(request: bytes) -> int:
    """The message id of a ping, which all of our requests have at one place."""
    at = 2 if request[1] < 0x80 else 2 + (request[1] & 0x7F)
    assert request[at] == 0x02
    return int.from_bytes(request[at + 2 : at + 2 + request[at + 1]], "big")
