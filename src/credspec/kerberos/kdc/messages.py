"""Kerberos messages in DER (RFC 4120 section 5, appendix A), as far as a TGS exchange needs them.

Fields are named as they are there. What the library has no type for, a KerberosString and the tags
of the application class, is read as tag and content, and made by `der`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Final, TypeVar

from cryptography.hazmat import asn1
from cryptography.hazmat.asn1 import TLV, BitString, Explicit, GeneralizedTime

SEQUENCE: Final = 0x30
_GENERAL_STRING: Final = b"\x1b"
_SHORT: Final = 0x80

TICKET, AUTHENTICATOR, AS_REQ, TGS_REQ, TGS_REP, AP_REQ = 0x61, 0x62, 0x6A, 0x6C, 0x6D, 0x6E
ENC_TGS_REP_PART, KRB_ERROR = 0x7A, 0x7E

_T = TypeVar("_T")


class MalformedMessageError(Exception):
    """Bytes are no message of the kind that is expected."""


@asn1.sequence
class PrincipalName:
    """A name: its type and its components."""

    name_type: Annotated[int, Explicit(0)]
    name_string: Annotated[list[TLV], Explicit(1)]


@asn1.sequence
class EncryptedData:
    """A ciphertext."""

    etype: Annotated[int, Explicit(0)]
    kvno: Annotated[int | None, Explicit(1)]
    cipher: Annotated[bytes, Explicit(2)]


@asn1.sequence
class EncryptionKeyData:
    """A key."""

    keytype: Annotated[int, Explicit(0)]
    keyvalue: Annotated[bytes, Explicit(1)]


@asn1.sequence
class ChecksumData:
    """A checksum."""

    cksumtype: Annotated[int, Explicit(0)]
    checksum: Annotated[bytes, Explicit(1)]


@asn1.sequence
class HostAddress:
    """An address."""

    addr_type: Annotated[int, Explicit(0)]
    address: Annotated[bytes, Explicit(1)]


@asn1.sequence
class AuthorizationDatum:
    """A piece of authorization data."""

    ad_type: Annotated[int, Explicit(0)]
    ad_data: Annotated[bytes, Explicit(1)]


@asn1.sequence
class PaData:
    """Preauthentication data."""

    padata_type: Annotated[int, Explicit(1)]
    padata_value: Annotated[bytes, Explicit(2)]


@asn1.sequence
class KdcReq:
    """AS-REQ or TGS-REQ within its application tag; the body as it came, for its checksum."""

    pvno: Annotated[int, Explicit(1)]
    msg_type: Annotated[int, Explicit(2)]
    padata: Annotated[list[PaData] | None, Explicit(3)]
    req_body: Annotated[TLV, Explicit(4)]


@asn1.sequence
class KdcReqBody:
    """What is asked for."""

    kdc_options: Annotated[BitString, Explicit(0)]
    cname: Annotated[PrincipalName | None, Explicit(1)]
    realm: Annotated[TLV, Explicit(2)]
    sname: Annotated[PrincipalName | None, Explicit(3)]
    from_time: Annotated[GeneralizedTime | None, Explicit(4)]
    till: Annotated[GeneralizedTime, Explicit(5)]
    rtime: Annotated[GeneralizedTime | None, Explicit(6)]
    nonce: Annotated[int, Explicit(7)]
    etype: Annotated[list[int], Explicit(8)]
    addresses: Annotated[list[HostAddress] | None, Explicit(9)]
    enc_authorization_data: Annotated[EncryptedData | None, Explicit(10)]
    additional_tickets: Annotated[list[TLV] | None, Explicit(11)]


@asn1.sequence
class ApReq:
    """AP-REQ within its application tag."""

    pvno: Annotated[int, Explicit(0)]
    msg_type: Annotated[int, Explicit(1)]
    ap_options: Annotated[BitString, Explicit(2)]
    ticket: Annotated[TLV, Explicit(3)]
    authenticator: Annotated[EncryptedData, Explicit(4)]


@asn1.sequence
class TicketData:
    """Ticket within its application tag."""

    tkt_vno: Annotated[int, Explicit(0)]
    realm: Annotated[TLV, Explicit(1)]
    sname: Annotated[PrincipalName, Explicit(2)]
    enc_part: Annotated[EncryptedData, Explicit(3)]


@asn1.sequence
class Authenticator:
    """Authenticator within its application tag."""

    authenticator_vno: Annotated[int, Explicit(0)]
    crealm: Annotated[TLV, Explicit(1)]
    cname: Annotated[PrincipalName, Explicit(2)]
    cksum: Annotated[ChecksumData | None, Explicit(3)]
    cusec: Annotated[int, Explicit(4)]
    ctime: Annotated[GeneralizedTime, Explicit(5)]
    subkey: Annotated[EncryptionKeyData | None, Explicit(6)]
    seq_number: Annotated[int | None, Explicit(7)]
    authorization_data: Annotated[list[AuthorizationDatum] | None, Explicit(8)]


@asn1.sequence
class KdcRep:
    """TGS-REP within its application tag."""

    pvno: Annotated[int, Explicit(0)]
    msg_type: Annotated[int, Explicit(1)]
    padata: Annotated[list[PaData] | None, Explicit(2)]
    crealm: Annotated[TLV, Explicit(3)]
    cname: Annotated[PrincipalName, Explicit(4)]
    ticket: Annotated[TLV, Explicit(5)]
    enc_part: Annotated[EncryptedData, Explicit(6)]


@asn1.sequence
class LastReq:
    """When something happened last."""

    lr_type: Annotated[int, Explicit(0)]
    lr_value: Annotated[GeneralizedTime, Explicit(1)]


@asn1.sequence
class EncKdcRepPart:
    """EncTGSRepPart within its application tag."""

    key: Annotated[EncryptionKeyData, Explicit(0)]
    last_req: Annotated[list[LastReq], Explicit(1)]
    nonce: Annotated[int, Explicit(2)]
    key_expiration: Annotated[GeneralizedTime | None, Explicit(3)]
    flags: Annotated[BitString, Explicit(4)]
    authtime: Annotated[GeneralizedTime, Explicit(5)]
    starttime: Annotated[GeneralizedTime | None, Explicit(6)]
    endtime: Annotated[GeneralizedTime, Explicit(7)]
    renew_till: Annotated[GeneralizedTime | None, Explicit(8)]
    srealm: Annotated[TLV, Explicit(9)]
    sname: Annotated[PrincipalName, Explicit(10)]
    caddr: Annotated[list[HostAddress] | None, Explicit(11)]


@asn1.sequence
class KrbError:
    """KRB-ERROR within its application tag, without the client's names and text."""

    pvno: Annotated[int, Explicit(0)]
    msg_type: Annotated[int, Explicit(1)]
    stime: Annotated[GeneralizedTime, Explicit(4)]
    susec: Annotated[int, Explicit(5)]
    error_code: Annotated[int, Explicit(6)]
    realm: Annotated[TLV, Explicit(9)]
    sname: Annotated[PrincipalName, Explicit(10)]


def decode(kind: type[_T], data: bytes | memoryview) -> _T:
    """Return a structure that is all of `data`.

    Raises:
        MalformedMessageError: it is not such a one.
    """
    try:
        return asn1.decode_der(kind, bytes(data))
    except ValueError:
        raise MalformedMessageError from None


def decode_tagged(kind: type[_T], tag: int, data: bytes | memoryview) -> _T:
    """Return a structure within a tag of the application class, that is all of `data`.

    Raises:
        MalformedMessageError: it is not such a one.
    """
    outer = decode(TLV, data)
    if outer.tag_bytes != bytes([tag]):
        raise MalformedMessageError
    return decode(kind, outer.data)


def encode_tagged(tag: int, structure: object) -> bytes:
    """Return a structure in DER within a tag of the application class."""
    return der(tag, asn1.encode_der(structure))


def der(tag: int, content: bytes | memoryview) -> bytes:
    """Return an element of one byte's tag and a content."""
    size = len(content)
    if size < _SHORT:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, _SHORT | len(length)]) + length + content


def tlv(data: bytes) -> TLV:
    """Return an element in DER as a field of a structure."""
    return asn1.decode_der(TLV, data)


def text_of(field: TLV) -> str:
    """Return a KerberosString's text, which has no control characters.

    Raises:
        MalformedMessageError: it is no such string.
    """
    try:
        text = bytes(field.data).decode()
    except UnicodeDecodeError:
        raise MalformedMessageError from None
    if field.tag_bytes != _GENERAL_STRING or not text.isprintable():
        raise MalformedMessageError
    return text


def string(text: str) -> TLV:
    """Return a text as a KerberosString."""
    return tlv(der(_GENERAL_STRING[0], text.encode()))


def name_of(name_type: int, parts: Iterable[str]) -> PrincipalName:
    """Return a principal's name."""
    return PrincipalName(name_type=name_type, name_string=[string(part) for part in parts])


def time_of(moment: datetime) -> GeneralizedTime:
    """Return a time in whole seconds, UTC."""
    return GeneralizedTime(moment.astimezone(UTC).replace(microsecond=0))


def flags_of(flags: int) -> BitString:
    """Return 32 flags, of which the first is the highest bit."""
    return BitString(flags.to_bytes(4, "big"), 0)
