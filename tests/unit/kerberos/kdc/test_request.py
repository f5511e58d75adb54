"""TGS requests: what is taken, and with which error everything else is refused."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.kerberos.ccache_reader import read_ccache
from credspec.kerberos.kdc.decoy import decoy_cache, decoy_ticket
from credspec.kerberos.kdc.encryption import EncryptionKey
from credspec.kerberos.kdc.messages import (
    AS_REQ,
    TGS_REQ,
    TICKET,
    KdcReq,
    TicketData,
    decode_tagged,
    der,
    encode_tagged,
    tlv,
)
from credspec.kerberos.kdc.refusals import (
    NO_SERVICE,
    KdcErrorCode,
    RefusedRequestError,
)
from credspec.kerberos.kdc.replays import Replays
from credspec.kerberos.kdc.request import (
    MAX_BYTES,
    RequestReader,
    TgsRequest,
    named_service,
)
from support.domain.decoy_client import NOW, REALM, Client

KEY = EncryptionKey(18, bytes(range(32)))
LDAP = ("ldap", "dc1.example.test")
MUTATIONS = int(os.environ.get("CREDSPEC_MUTATIONS", "10000"))


def read(data: bytes) -> TgsRequest:
    return RequestReader(KEY).read(data, NOW)


def code_of(data: bytes, reader: RequestReader | None = None) -> KdcErrorCode:
    with pytest.raises(RefusedRequestError) as refused:
        (reader or RequestReader(KEY)).read(data, NOW)
    return refused.value.code


def test_a_plain_request() -> None:
    client = Client.make(KEY)
    request = read(client.request(*LDAP))
    assert str(request.service) == f"ldap/dc1.example.test@{REALM}"
    assert request.decoy == client.decoy
    assert request.nonce == client.nonce
    assert request.till == NOW + timedelta(days=1)
    assert request.enctypes == (18, 17)
    assert (request.reply_key, request.reply_usage) == (client.decoy.key, 8)


def test_a_subkey_encrypts_the_reply() -> None:
    subkey = EncryptionKey.random()
    request = read(Client.make(KEY, subkey=subkey).request(*LDAP))
    assert (request.reply_key, request.reply_usage) == (subkey, 9)


@pytest.mark.parametrize("nonce", [0, 1, 2**31, 2**32 - 1, -1])
def test_nonces_of_all_clients(nonce: int) -> None:
    """It is unsigned, and some send it signed."""
    assert read(Client.make(KEY, nonce=nonce).request(*LDAP)).nonce == nonce


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"options": 1 << 29}, KdcErrorCode.BAD_OPTION),  # forwarded
        ({"options": 1 << 27}, KdcErrorCode.BAD_OPTION),  # proxy
        ({"options": 1 << 17}, KdcErrorCode.BAD_OPTION),  # S4U2Proxy
        ({"options": 1 << 3}, KdcErrorCode.BAD_OPTION),  # user-to-user
        ({"options": 1 << 1}, KdcErrorCode.BAD_OPTION),  # renew
        ({"options": 1}, KdcErrorCode.BAD_OPTION),  # validate
        ({"padata": ((129, b"x"),)}, KdcErrorCode.POLICY),  # S4U2Self
        ({"padata": ((130, b"x"),)}, KdcErrorCode.POLICY),  # the same with a certificate
        ({"additional": (der(TICKET, b"\x30\x00"),)}, KdcErrorCode.POLICY),
        ({"proofs": 0}, KdcErrorCode.PADATA_UNSUPPORTED),
        ({"proofs": 2}, KdcErrorCode.PADATA_UNSUPPORTED),
        ({"version": 4}, KdcErrorCode.BAD_VERSION),
        ({"client": "Administrator"}, KdcErrorCode.BAD_MATCH),
        ({"client_realm": "OTHER.TEST"}, KdcErrorCode.BAD_MATCH),
        ({"realm": "OTHER.TEST"}, KdcErrorCode.WRONG_REALM),
        ({"target": "OTHER.TEST"}, KdcErrorCode.WRONG_REALM),
        ({"checksum_type": None}, KdcErrorCode.INAPPROPRIATE_CHECKSUM),
        ({"checksum_type": 1}, KdcErrorCode.INAPPROPRIATE_CHECKSUM),
        ({"checksum_type": 15}, KdcErrorCode.INAPPROPRIATE_CHECKSUM),
        ({"checksum": bytes(12)}, KdcErrorCode.MODIFIED),
        ({"now": NOW + timedelta(minutes=6)}, KdcErrorCode.CLOCK_SKEW),
        ({"now": NOW - timedelta(minutes=6)}, KdcErrorCode.CLOCK_SKEW),
    ],
)
def test_refused(changes: dict[str, Any], code: KdcErrorCode) -> None:
    assert code_of(Client.make(KEY, **changes).request(*LDAP)) == code


@pytest.mark.parametrize("minutes", [-4, 4])
def test_clocks_that_differ_by_less(minutes: int) -> None:
    read(Client.make(KEY, now=NOW + timedelta(minutes=minutes)).request(*LDAP))


@pytest.mark.parametrize("options", [0, 0x40810010, 0x00010000, 0x50810000])
def test_options_of_plain_clients(options: int) -> None:
    """Forwardable, proxiable, renewable, renewable-ok, canonicalize."""
    read(Client.make(KEY, options=options).request(*LDAP))


def test_fast_around_it_is_passed_over() -> None:
    """MIT wraps each request, and takes an answer without."""
    read(Client.make(KEY, padata=((136, b"\xa0\x03whatever"),)).request(*LDAP))


def test_a_ticket_of_another_key() -> None:
    client = Client.make(EncryptionKey.random())
    assert code_of(client.request(*LDAP)) == KdcErrorCode.BAD_INTEGRITY


def test_another_session_key() -> None:
    one, other = Client.make(KEY), Client.make(KEY)
    stolen = Client(KEY, other.decoy)

    stolen.ticket = decoy_ticket(one.decoy, KEY, REALM)
    assert code_of(stolen.request(*LDAP)) == KdcErrorCode.BAD_INTEGRITY


def test_a_decoy_that_has_ended() -> None:
    client = Client.make(KEY)
    late = client.decoy.end + timedelta(seconds=1)
    client.now = late
    with pytest.raises(RefusedRequestError) as refused:
        RequestReader(KEY).read(client.request(*LDAP), late)
    assert refused.value.code == KdcErrorCode.TICKET_EXPIRED


def test_a_logon() -> None:
    data = Client.make(KEY).request(*LDAP)
    assert code_of(bytes([AS_REQ]) + data[1:]) == KdcErrorCode.POLICY


def test_what_was_sent_before() -> None:
    reader, client = RequestReader(KEY), Client.make(KEY)
    data = client.request(*LDAP)
    reader.read(data, NOW)
    assert code_of(data, reader) == KdcErrorCode.REPEATED
    reader.read(client.request(*LDAP), NOW)


def test_replays_are_remembered_as_long_as_their_time_is_taken() -> None:
    replays = Replays()
    assert replays.is_new(b"one", NOW)
    for minutes in range(1, 10):
        assert not replays.is_new(b"one", NOW + timedelta(minutes=minutes))
        assert replays.is_new(b"%d" % minutes, NOW + timedelta(minutes=minutes))
    assert not replays.is_new(b"one", NOW + timedelta(minutes=10))
    assert not replays.is_new(b"9", NOW + timedelta(minutes=19))


def test_what_nobody_takes_any_more_is_forgotten() -> None:
    """Or the replays of a container would grow for as long as it lives."""
    replays = Replays()
    for number in range(200):
        now = NOW + timedelta(minutes=10 * number)
        assert replays.is_new(b"%d" % number, now)
    assert len(replays._new | replays._old) <= 2
    assert replays.is_new(b"0", now)


@pytest.mark.parametrize(
    "parts",
    [
        (),
        ("",),
        ("ldap", ""),
        ("ldap", "dc1/x"),
        ("ldap", "dc1@OTHER.TEST"),
        ("ldap", "dc1\0.example.test"),
        ("ldap", "dc1\n"),
        ("ldap", "x" * 600),
        tuple("abcdefghi"),
    ],
)
def test_names_that_are_none(parts: tuple[str, ...]) -> None:
    code = code_of(Client.make(KEY).request(*parts))
    assert code in {KdcErrorCode.UNKNOWN_SERVICE, KdcErrorCode.GENERIC}
    if not parts:
        assert code == KdcErrorCode.UNKNOWN_SERVICE


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"msg_type": 10}, KdcErrorCode.MESSAGE_TYPE),  # a logon, as a request for a ticket
        ({"msg_type": 13}, KdcErrorCode.MESSAGE_TYPE),
        ({"pvno": 4}, KdcErrorCode.BAD_VERSION),
    ],
)
def test_messages_of_another_type(changes: dict[str, Any], code: KdcErrorCode) -> None:
    data = Client.make(KEY).request(*LDAP)
    request = decode_tagged(KdcReq, TGS_REQ, data)
    assert code_of(encode_tagged(TGS_REQ, replace(request, **changes))) == code


@pytest.mark.parametrize("tag", [0x04, 0x31, 0x60])
def test_a_body_that_is_no_sequence(tag: int) -> None:
    """Its bytes were signed as one: what the checksum covers must be what was sent."""
    data = Client.make(KEY).request(*LDAP)
    request = decode_tagged(KdcReq, TGS_REQ, data)
    other = replace(request, req_body=tlv(der(tag, request.req_body.data)))
    assert code_of(encode_tagged(TGS_REQ, other)) == KdcErrorCode.MESSAGE_TYPE


def test_a_service_of_no_realm() -> None:
    assert code_of(Client.make(KEY, realm="").request(*LDAP)) == KdcErrorCode.UNKNOWN_SERVICE


def test_long_messages() -> None:
    assert code_of(bytes(MAX_BYTES + 1)) == KdcErrorCode.FIELD_TOO_LONG
    data = Client.make(KEY, padata=((2, bytes(70_000)),)).request(*LDAP)
    assert code_of(data) == KdcErrorCode.FIELD_TOO_LONG
    read(Client.make(KEY, padata=((2, bytes(60_000)),)).request(*LDAP))


@given(st.integers(0, 20_000), st.integers(0, 20_000), st.booleans())
def test_what_is_written_of_a_refused_request_is_short(part: int, realm: int, own: bool) -> None:
    """A line of the audit log is written of it, for any program that reaches the port."""
    key = KEY if own else EncryptionKey.random()
    client = Client.make(key, realm="R" * realm)
    data = client.request("ldap", "x" * part)
    assert len(str(named_service(data))) <= 1100
    try:
        read(data)
    except RefusedRequestError as error:
        assert len(str(error.service)) <= 1100
    else:
        assert own


@given(st.binary(max_size=300))
def test_anything(data: bytes) -> None:
    with pytest.raises(RefusedRequestError):
        read(data)


def test_mutated_requests_are_refused_or_mean_the_same() -> None:
    """Each change within what is signed is noticed; nothing else than a refusal is raised."""
    chance = random.Random(20)
    client = Client.make(KEY, subkey=EncryptionKey.random())
    requests = [client.request(*LDAP) for _ in range(20)]
    for _ in range(MUTATIONS):
        data = mutated(chance.choice(requests), chance)
        try:
            request = read(data)
        except RefusedRequestError:
            continue
        assert request.service.parts == LDAP
        assert request.decoy == client.decoy


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Return a message with one to four changes: bytes, lengths, pieces left out or doubled."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(changed))
        match chance.randrange(5):
            case 0:
                changed[at] ^= 1 << chance.randrange(8)
            case 1:
                changed[at] = chance.choice([0, 0x7F, 0x80, 0x82, 0x84, 0x88, 0xFF])
            case 2:
                del changed[at : at + chance.randint(1, 40)]
            case 3:
                changed[at:at] = changed[at : at + chance.randint(1, 40)]
            case _:
                changed[at:] = b""
        if not changed:
            return b""
    return bytes(changed)


@given(st.binary(max_size=300))
def test_the_service_that_anything_names(data: bytes) -> None:
    assert named_service(data) == NO_SERVICE


def test_the_service_that_a_request_names() -> None:
    assert named_service(Client.make(KEY).request(*LDAP)).parts == LDAP


def test_the_cache_of_a_decoy() -> None:
    client = Client.make(KEY)
    cache = read_ccache(decoy_cache(client.decoy, KEY))
    assert cache.principal == f"WebApp01$@{REALM}"
    [record] = cache.records
    assert record.server == f"krbtgt/{REALM}@{REALM}"
    assert record.end == client.decoy.end
    begin = record.data.index(bytes([TICKET]) + b"\x82")
    ticket = record.data[begin:-4]
    assert decode_tagged(TicketData, TICKET, ticket).enc_part.etype == 18
