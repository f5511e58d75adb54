"""Answers of a KDC: tickets, referrals and errors (RFC 4120 3.3.3, 5.4.2, 5.9.1; RFC 6806)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from credspec.kerberos.kdc.decoy import (
    NT_PRINCIPAL,
    NT_SRV_INST,
    decoy_ticket,
)
from credspec.kerberos.kdc.encryption import EncryptionKey
from credspec.kerberos.kdc.messages import (
    ENC_TGS_REP_PART,
    KRB_ERROR,
    TGS_REP,
    TICKET,
    EncKdcRepPart,
    EncryptedData,
    EncryptionKeyData,
    KdcRep,
    KrbError,
    LastReq,
    TicketData,
    decode_tagged,
    encode_tagged,
    flags_of,
    name_of,
    string,
    text_of,
    time_of,
    tlv,
)
from credspec.kerberos.kdc.refusals import (
    KRBTGT,
    AskedService,
    KdcErrorCode,
)
from credspec.kerberos.kdc.request import (
    TgsRequest,
)

_VERSION: Final = 5
_TGS_REP_TYPE, _ERROR_TYPE = 13, 30
_PREAUTHENTICATED: Final = 0x00200000


@dataclass(frozen=True, slots=True)
class GivenTicket:
    """A real ticket of a service with its session key.

    `ticket` is DER. `enctype` and `key` are the session key's, `realm` is whose KDC gave it;
    `flags` are 32 bits of RFC 4120 5.3; times are UTC.
    """

    ticket: bytes = field(repr=False)
    enctype: int
    key: bytes = field(repr=False)
    realm: str
    flags: int
    authenticated: datetime
    start: datetime
    end: datetime


def ticket_reply(request: TgsRequest, given: GivenTicket, now: datetime) -> bytes:
    """Return the TGS-REP with a real ticket, for the name that was asked for.

    The ticket has that name, too: clients compare both, and another's may differ in case. It is not
    under the protection of the ticket's key.
    """
    asked = request.service
    data = decode_tagged(TicketData, TICKET, given.ticket)
    if tuple(map(text_of, data.sname.name_string)) != asked.parts:
        data.sname = name_of(data.sname.name_type, asked.parts)
        given = replace(given, ticket=encode_tagged(TICKET, data))
    return _reply(request, given, asked, now)


def referral_reply(
    request: TgsRequest, lease_key: EncryptionKey, realm: str, now: datetime
) -> bytes:
    """Return the TGS-REP that leads to another realm, with a decoy for it."""
    decoy = request.decoy.with_key(EncryptionKey.random())
    given = GivenTicket(
        ticket=decoy_ticket(decoy, lease_key, realm),
        enctype=decoy.key.enctype,
        key=decoy.key.value,
        realm=decoy.client_realm,
        flags=_PREAUTHENTICATED,
        authenticated=decoy.start,
        start=decoy.start,
        end=decoy.end,
    )
    name = AskedService((KRBTGT, realm), NT_SRV_INST, decoy.client_realm)
    return _reply(request, given, name, now)


def error_reply(code: KdcErrorCode, service: AskedService, now: datetime) -> bytes:
    """Return the KRB-ERROR with a code, about a service."""
    error = KrbError(
        pvno=_VERSION,
        msg_type=_ERROR_TYPE,
        stime=time_of(now),
        susec=now.microsecond,
        error_code=int(code),
        realm=string(service.realm),
        sname=name_of(service.name_type, service.parts),
    )
    return encode_tagged(KRB_ERROR, error)


def _reply(request: TgsRequest, given: GivenTicket, name: AskedService, now: datetime) -> bytes:
    decoy = request.decoy
    part = EncKdcRepPart(
        key=EncryptionKeyData(keytype=given.enctype, keyvalue=given.key),
        last_req=[LastReq(lr_type=0, lr_value=time_of(given.authenticated))],
        nonce=request.nonce,
        key_expiration=None,
        flags=flags_of(given.flags),
        authtime=time_of(given.authenticated),
        # Clients take it for the KDC's clock, and a ticket that is held is older than their skew.
        starttime=time_of(max(given.start, now)),
        endtime=time_of(given.end),
        renew_till=None,
        srealm=string(given.realm),
        sname=name_of(name.name_type, name.parts),
        caddr=None,
    )
    cipher = request.reply_key.encrypt(request.reply_usage, encode_tagged(ENC_TGS_REP_PART, part))
    reply = KdcRep(
        pvno=_VERSION,
        msg_type=_TGS_REP_TYPE,
        padata=None,
        crealm=string(decoy.client_realm),
        cname=name_of(NT_PRINCIPAL, decoy.client.split("/")),
        ticket=tlv(given.ticket),
        enc_part=EncryptedData(etype=request.reply_key.enctype, kvno=None, cipher=cipher),
    )
    return encode_tagged(TGS_REP, reply)
