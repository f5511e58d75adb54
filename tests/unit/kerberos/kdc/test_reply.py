"""Answers of the broker's KDC, as a client reads them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from credspec.kerberos.kdc.encryption import EncryptionKey
from credspec.kerberos.kdc.messages import (
    KRB_ERROR,
    TICKET,
    EncryptedData,
    KrbError,
    TicketData,
    decode_tagged,
    der,
    encode_tagged,
    name_of,
    string,
    text_of,
)
from credspec.kerberos.kdc.refusals import (
    AskedService,
    KdcErrorCode,
)
from credspec.kerberos.kdc.reply import GivenTicket, error_reply, referral_reply, ticket_reply
from credspec.kerberos.kdc.request import (
    RequestReader,
)
from credspec.kerberos.ticket_life import CLOCK_SKEW
from support.domain.decoy_client import NOW, REALM, Client, error_of, parts_of

KEY = EncryptionKey(18, bytes(range(32)))
LDAP = ("ldap", "dc1.example.test")


def real_ticket(*parts: str) -> GivenTicket:
    data = TicketData(
        tkt_vno=5,
        realm=string(REALM),
        sname=name_of(2, parts),
        enc_part=EncryptedData(etype=18, kvno=3, cipher=bytes(900)),
    )
    return GivenTicket(
        ticket=encode_tagged(TICKET, data),
        enctype=18,
        key=bytes(32),
        realm=REALM,
        flags=0x00250000,
        authenticated=NOW - timedelta(hours=1),
        start=NOW,
        end=NOW + timedelta(minutes=10),
    )


def test_a_ticket() -> None:
    client, given_ticket = Client.make(KEY, name_type=0), real_ticket(*LDAP)
    request = RequestReader(KEY).read(client.request(*LDAP), NOW)
    reply, part = client.reply(ticket_reply(request, given_ticket, NOW))
    assert parts_of(reply.cname) == ("WebApp01$",)
    assert text_of(reply.crealm) == REALM
    assert der(TICKET, reply.ticket.data) == given_ticket.ticket
    assert part.nonce == client.nonce
    assert (part.key.keytype, part.key.keyvalue) == (18, bytes(32))
    assert parts_of(part.sname) == LDAP
    assert part.sname.name_type == 0  # as it was asked for: Java compares it
    assert text_of(part.srealm) == REALM
    assert part.flags.as_bytes().hex() == "00250000"
    assert part.endtime.as_datetime() == NOW + timedelta(minutes=10)
    assert [each.lr_type for each in part.last_req] == [0]  # "no information"
    shown = repr(replace(given_ticket, ticket=b"a secret", key=b"a secret"))
    assert "secret" not in shown


def test_a_ticket_has_the_name_that_was_asked_for() -> None:
    client = Client.make(KEY, subkey=EncryptionKey.random())
    request = RequestReader(KEY).read(client.request(*LDAP), NOW)
    reply, part = client.reply(ticket_reply(request, real_ticket("LDAP", "DC1.example.test"), NOW))
    ticket = decode_tagged(TicketData, TICKET, der(TICKET, reply.ticket.data))
    assert parts_of(ticket.sname) == parts_of(part.sname) == LDAP
    assert ticket.enc_part.kvno == 3


def test_a_referral_leads_to_another_realm() -> None:
    client = Client.make(KEY)
    reader = RequestReader(KEY)
    request = reader.read(client.request("krbtgt", "OTHER.TEST"), NOW)
    reply, part = client.reply(referral_reply(request, KEY, "OTHER.TEST", NOW))
    assert parts_of(part.sname) == ("krbtgt", "OTHER.TEST")
    assert part.flags.as_bytes().hex() == "00200000"  # pre-authent
    assert text_of(part.srealm) == REALM
    client.ticket = der(TICKET, reply.ticket.data)
    key = EncryptionKey(part.key.keytype, part.key.keyvalue)
    assert key != client.decoy.key
    client.decoy = request.decoy.with_key(key)
    client.realm = "OTHER.TEST"
    assert reader.read(client.request("HTTP", "x.other.test"), NOW).service.realm == "OTHER.TEST"


@given(st.integers(min_value=-300, max_value=30_000_000), st.booleans())
def test_a_reply_starts_when_it_is_given(age: int, is_referral: bool) -> None:
    """However old what it brings is: MIT Kerberos, Heimdal and Java compare it with their clock."""
    now = NOW + timedelta(seconds=age)
    client = Client.make(KEY, now=now, till=now + timedelta(days=1))
    request = RequestReader(KEY).read(client.request(*LDAP), now)
    if is_referral:
        answer = referral_reply(request, KEY, "OTHER.TEST", now)
    else:
        answer = ticket_reply(request, real_ticket(*LDAP), now)
    _, part = client.reply(answer)
    assert part.starttime is not None
    starts = part.starttime.as_datetime()
    assert timedelta() <= starts - now <= CLOCK_SKEW
    # A ticket of a domain whose clock is ahead starts no earlier for being passed on.
    assert is_referral or starts >= NOW


@given(
    st.sampled_from(KdcErrorCode),
    st.lists(st.text(st.characters(codec="utf-8"), max_size=20), min_size=1, max_size=3),
)
def test_an_error(code: KdcErrorCode, parts: list[str]) -> None:
    data = error_reply(code, AskedService(tuple(parts), 1, REALM), NOW)
    assert error_of(data) == code
    assert text_of(decode_tagged(KrbError, KRB_ERROR, data).realm) == REALM
