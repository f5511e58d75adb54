"""Decoys: ticket-granting tickets that only the agent understands, and their credential caches.

A client sends a decoy as it would send its TGT. What is encrypted in it is the agent's own: with
whose tickets it is answered, and the session key. At a real KDC it is a ticket of an unknown key.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from credspec.kerberos.ccache import ccache_bytes
from credspec.kerberos.kdc.encryption import DecryptionError, EncryptionKey
from credspec.kerberos.kdc.messages import (
    TICKET,
    EncryptedData,
    TicketData,
    decode_tagged,
    encode_tagged,
    name_of,
    string,
)
from credspec.kerberos.kdc.refusals import KRBTGT

LIFE: Final = timedelta(days=365)
"""How long a decoy lasts: programs that keep the ticket of their start never have an old one."""

NT_PRINCIPAL: Final = 1
NT_SRV_INST: Final = 2
INITIAL_PREAUTHENTICATED: Final = 0x00600000  # flags 9 and 10 of RFC 4120 2.1, 2.9.3
_TICKET_USAGE: Final = 2  # RFC 4120 7.5.1
_KEY_NUMBER: Final = 1
_BACKDATED: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Decoy:
    """What a decoy tells the agent.

    `account` is whose tickets it stands for, ``NAME@domain`` in lower case; `client` the principal
    in realm `client_realm` that it names; `key` its session key; it is good from `start` to `end`.
    """

    account: str
    client: str
    client_realm: str
    key: EncryptionKey
    start: datetime
    end: datetime

    def with_key(self, key: EncryptionKey) -> Decoy:
        """Return the same with another session key."""
        return replace(self, key=key)


def new_decoy(account: str, principal: str, now: datetime) -> Decoy:
    """Return a decoy of an account, such as ``webapp01@example.test``, for its principal."""
    client, _, realm = principal.rpartition("@")
    start = (now - _BACKDATED).replace(microsecond=0)
    return Decoy(account, client, realm, EncryptionKey.random(), start, start + LIFE)


def decoy_ticket(decoy: Decoy, lease_key: EncryptionKey, target: str) -> bytes:
    """Return a decoy as a ticket in DER, for ``krbtgt/TARGET`` of the client's realm."""
    content = {
        "account": decoy.account,
        "client": decoy.client,
        "realm": decoy.client_realm,
        "target": target,
        "enctype": decoy.key.enctype,
        "key": decoy.key.value.hex(),
        "start": int(decoy.start.timestamp()),
        "end": int(decoy.end.timestamp()),
    }
    cipher = lease_key.encrypt(_TICKET_USAGE, json.dumps(content).encode())
    ticket = TicketData(
        tkt_vno=5,
        realm=string(decoy.client_realm),
        sname=name_of(NT_SRV_INST, (KRBTGT, target)),
        enc_part=EncryptedData(etype=lease_key.enctype, kvno=_KEY_NUMBER, cipher=cipher),
    )
    return encode_tagged(TICKET, ticket)


def opened_decoy(ticket: bytes, lease_key: EncryptionKey) -> tuple[Decoy, str]:
    """Return what a ticket tells that `decoy_ticket` made with this key, and its target.

    Raises:
        MalformedMessageError: it is no ticket.
        DecryptionError: another key made it.
    """
    found = decode_tagged(TicketData, TICKET, ticket)
    if found.enc_part.etype != lease_key.enctype:
        raise DecryptionError
    # Only this module encrypts with the key, so what comes out is its own.
    content = json.loads(lease_key.decrypt(_TICKET_USAGE, found.enc_part.cipher))
    decoy = Decoy(
        *(content["account"], content["client"], content["realm"]),
        EncryptionKey(content["enctype"], bytes.fromhex(content["key"])),
        datetime.fromtimestamp(content["start"], UTC),
        datetime.fromtimestamp(content["end"], UTC),
    )
    return decoy, content["target"]


def decoy_cache(decoy: Decoy, lease_key: EncryptionKey) -> bytes:
    """Return the content of a FILE cache (version 4) with a decoy, as a TGT of the own realm.

    It has no note of FAST, so that no client wraps its requests in that.
    """
    realm = decoy.client_realm
    start, end = int(decoy.start.timestamp()), int(decoy.end.timestamp())
    credential = b"".join(
        (
            _principal(NT_PRINCIPAL, realm, decoy.client.split("/")),
            _principal(NT_SRV_INST, realm, [KRBTGT, realm]),
            struct.pack(">H", decoy.key.enctype) + _counted(decoy.key.value),
            struct.pack(">IIII", start, start, end, 0),
            struct.pack(">BI", 0, INITIAL_PREAUTHENTICATED),
            struct.pack(">II", 0, 0),  # addresses, authorization data
            _counted(decoy_ticket(decoy, lease_key, realm)),
            _counted(b""),
        )
    )
    return ccache_bytes(f"{decoy.client}@{realm}", credential)


def _principal(kind: int, realm: str, parts: list[str]) -> bytes:
    counted = b"".join(_counted(part.encode()) for part in (realm, *parts))
    return struct.pack(">II", kind, len(parts)) + counted


def _counted(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data
