"""TGS requests with a decoy, read and verified (RFC 4120 3.3.1, 3.3.2, 3.2.3).

Whatever is not a plain request for the ticket of one service is refused with the error that a KDC
would give.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography.hazmat.asn1 import TLV

from credspec.kerberos.kdc.decoy import Decoy, opened_decoy
from credspec.kerberos.kdc.encryption import (
    DecryptionError,
    EncryptionKey,
    UnknownChecksumError,
)
from credspec.kerberos.kdc.messages import (
    AP_REQ,
    AS_REQ,
    AUTHENTICATOR,
    SEQUENCE,
    TGS_REQ,
    ApReq,
    Authenticator,
    EncryptionKeyData,
    KdcReq,
    KdcReqBody,
    MalformedMessageError,
    PrincipalName,
    decode,
    decode_tagged,
    der,
    text_of,
)
from credspec.kerberos.kdc.refusals import (
    NO_SERVICE,
    AskedService,
    KdcErrorCode,
    RefusedRequestError,
)
from credspec.kerberos.kdc.replays import Replays
from credspec.kerberos.ticket_life import CLOCK_SKEW

MAX_BYTES: Final = 64 * 1024
"""The longest request that is read."""

_VERSION: Final = 5
_AP_REQ_TYPE, _TGS_REQ_TYPE = 14, 12
_MOST_PARTS, _MOST_TEXT = 8, 512
_PA_TGS_REQ, _PA_FOR_USER, _PA_S4U_X509_USER = 1, 129, 130
_CHECKSUM_USAGE, _AUTHENTICATOR_USAGE = 6, 7  # RFC 4120 7.5.1
_SESSION_KEY_USAGE, _SUBKEY_USAGE = 8, 9
# Bits of KDCOptions (RFC 4120 5.4.1, RFC 6806, MS-SFU): forwarded, proxy, postdated,
# cname-in-addl-tkt, enc-tkt-in-skey, renew, validate.
_REFUSED_OPTIONS: Final = sum(1 << (31 - bit) for bit in (2, 4, 6, 14, 28, 30, 31))


@dataclass(frozen=True, slots=True)
class TgsRequest:
    """A verified request for one ticket.

    The reply is encrypted with `reply_key` for `reply_usage`. `till` is when the client wants the
    ticket to end, `enctypes` are those of session keys that it understands.
    """

    decoy: Decoy
    service: AskedService
    nonce: int
    till: datetime
    enctypes: tuple[int, ...]
    reply_key: EncryptionKey = field(repr=False)
    reply_usage: int


class RequestReader:
    """Reads the requests of one lease, whose decoys are encrypted with `key`."""

    def __init__(self, key: EncryptionKey) -> None:
        self._key = key
        self._replays = Replays()

    def read(self, data: bytes, now: datetime) -> TgsRequest:
        """Return the request that a message is, after every check that needs no policy.

        Raises:
            RefusedRequestError: what to answer in its place.
        """
        try:
            request = _kdc_req(data)
            body_bytes = der(SEQUENCE, request.req_body.data)
            body = decode(KdcReqBody, body_bytes)
            service = _service(body)
            kinds, ap_req = _preauthentication(request, service)
            decoy, reply_key, usage = self._authenticated(ap_req, body_bytes, service, now)
            _check_plain(body, kinds, service)
        except MalformedMessageError:
            raise RefusedRequestError(KdcErrorCode.GENERIC, "not readable") from None
        return TgsRequest(
            decoy=decoy,
            service=service,
            nonce=body.nonce,
            till=body.till.as_datetime(),
            enctypes=tuple(body.etype),
            reply_key=reply_key,
            reply_usage=usage,
        )

    def _authenticated(
        self, ap_req: ApReq, body: bytes, service: AskedService, now: datetime
    ) -> tuple[Decoy, EncryptionKey, int]:
        """Return the decoy, and the key of the reply with its usage, once all of it is proven."""

        def refused(code: KdcErrorCode, reason: str) -> RefusedRequestError:
            return RefusedRequestError(code, reason, service)

        cipher = ap_req.authenticator.cipher
        try:
            decoy, target = opened_decoy(_whole(ap_req.ticket), self._key)
            if ap_req.authenticator.etype != decoy.key.enctype:
                raise DecryptionError
            plain = decoy.key.decrypt(_AUTHENTICATOR_USAGE, cipher)
        except DecryptionError:
            raise refused(KdcErrorCode.BAD_INTEGRITY, "not a ticket of this container") from None
        authenticator = decode_tagged(Authenticator, AUTHENTICATOR, plain)
        if not decoy.start - CLOCK_SKEW <= now < decoy.end:
            raise refused(KdcErrorCode.TICKET_EXPIRED, "the container's ticket has ended")
        client = "/".join(_parts(authenticator.cname)), text_of(authenticator.crealm)
        if client != (decoy.client, decoy.client_realm):
            raise refused(KdcErrorCode.BAD_MATCH, "authenticator of another client")
        if target.lower() != service.realm.lower():
            raise refused(KdcErrorCode.WRONG_REALM, f"a ticket for realm {target}")
        _check_checksum(authenticator, decoy.key, body, service)
        if abs(now - authenticator.ctime.as_datetime()) > CLOCK_SKEW:
            raise refused(KdcErrorCode.CLOCK_SKEW, "the clock is off by more than five minutes")
        if not self._replays.is_new(cipher, now):
            raise refused(KdcErrorCode.REPEATED, "sent before")
        if authenticator.subkey is None:
            return decoy, decoy.key, _SESSION_KEY_USAGE
        return decoy, _subkey(authenticator.subkey, service), _SUBKEY_USAGE


def _kdc_req(data: bytes) -> KdcReq:
    if len(data) > MAX_BYTES:
        raise RefusedRequestError(KdcErrorCode.FIELD_TOO_LONG, "longer than 64 KiB")
    if data[:1] == bytes([AS_REQ]):
        raise RefusedRequestError(KdcErrorCode.POLICY, "a logon: there are no passwords here")
    request = decode_tagged(KdcReq, TGS_REQ, data)
    if request.pvno != _VERSION:
        raise RefusedRequestError(KdcErrorCode.BAD_VERSION, "not version 5")
    if request.msg_type != _TGS_REQ_TYPE or bytes(request.req_body.tag_bytes) != b"\x30":
        raise RefusedRequestError(KdcErrorCode.MESSAGE_TYPE, "not a TGS request")
    return request


def named_service(data: bytes) -> AskedService:
    """Return the service that a request names, without any check; `NO_SERVICE` if unreadable."""
    try:
        request = _kdc_req(data)
        return _service(decode(KdcReqBody, der(SEQUENCE, request.req_body.data)))
    except (MalformedMessageError, RefusedRequestError):
        return NO_SERVICE


def _service(body: KdcReqBody) -> AskedService:
    if body.sname is None:
        raise RefusedRequestError(KdcErrorCode.UNKNOWN_SERVICE, "no service is named")
    parts = _parts(body.sname)
    realm = text_of(body.realm)
    if len(realm) > _MOST_TEXT:
        raise MalformedMessageError  # it would be a line of the audit log
    if not realm or not parts or not all(parts) or any("/" in p or "@" in p for p in parts):
        raise RefusedRequestError(KdcErrorCode.UNKNOWN_SERVICE, "no name of a service")
    return AskedService(parts, body.sname.name_type, realm)


def _parts(name: PrincipalName) -> tuple[str, ...]:
    if len(name.name_string) > _MOST_PARTS:
        raise MalformedMessageError
    parts = tuple(text_of(part) for part in name.name_string)
    if sum(map(len, parts)) > _MOST_TEXT:
        raise MalformedMessageError
    return parts


def _preauthentication(request: KdcReq, service: AskedService) -> tuple[set[int], ApReq]:
    """Return the kinds of preauthentication data, and the AP-REQ among it."""
    padata = request.padata or []
    # MIT wraps each request in FAST as well, and takes an answer without: what stands outside
    # is whole, and signed by the authenticator.
    proofs = [each.padata_value for each in padata if each.padata_type == _PA_TGS_REQ]
    if len(proofs) != 1:
        raise RefusedRequestError(
            KdcErrorCode.PADATA_UNSUPPORTED, "not exactly one ticket in it", service
        )
    ap_req = decode_tagged(ApReq, AP_REQ, proofs[0])
    if ap_req.pvno != _VERSION:
        raise RefusedRequestError(KdcErrorCode.BAD_VERSION, "not version 5", service)
    if ap_req.msg_type != _AP_REQ_TYPE:
        raise RefusedRequestError(KdcErrorCode.MESSAGE_TYPE, "no AP-REQ", service)
    return {each.padata_type for each in padata}, ap_req


def _check_checksum(
    authenticator: Authenticator, key: EncryptionKey, body: bytes, service: AskedService
) -> None:
    found = authenticator.cksum
    try:
        if found is None:
            raise UnknownChecksumError
        is_right = key.verify(_CHECKSUM_USAGE, found.cksumtype, found.checksum, body)
    except UnknownChecksumError:
        raise RefusedRequestError(
            KdcErrorCode.INAPPROPRIATE_CHECKSUM, "no checksum of a kind that counts", service
        ) from None
    if not is_right:
        raise RefusedRequestError(KdcErrorCode.MODIFIED, "changed on its way", service)


def _subkey(data: EncryptionKeyData, service: AskedService) -> EncryptionKey:
    try:
        return EncryptionKey(data.keytype, data.keyvalue)
    except ValueError:
        raise RefusedRequestError(
            KdcErrorCode.ETYPE_UNSUPPORTED, "a key that is not of AES", service
        ) from None


def _check_plain(body: KdcReqBody, kinds: set[int], service: AskedService) -> None:
    """Refuse what is more than a request for one service's ticket."""
    if {_PA_FOR_USER, _PA_S4U_X509_USER} & kinds:
        raise RefusedRequestError(KdcErrorCode.POLICY, "in the name of another user", service)
    if body.additional_tickets:
        raise RefusedRequestError(KdcErrorCode.POLICY, "with another ticket", service)
    # More than 32 bits may come; those that mean something are the first.
    options = int.from_bytes(body.kdc_options.as_bytes()[:4].ljust(4, b"\0"), "big")
    if options & _REFUSED_OPTIONS:
        raise RefusedRequestError(
            KdcErrorCode.BAD_OPTION, f"with options {options & _REFUSED_OPTIONS:#010x}", service
        )


def _whole(field: TLV) -> bytes:
    """Return an element with its tag."""
    return der(bytes(field.tag_bytes)[0], field.data)
