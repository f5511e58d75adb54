"""A client of the broker that can also say what no client of a library would."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat import asn1
from cryptography.hazmat.asn1 import BitString

from credspec.kerberos.kdc.decoy import Decoy, decoy_ticket, new_decoy
from credspec.kerberos.kdc.encryption import EncryptionKey
from credspec.kerberos.kdc.messages import (
    AP_REQ,
    AUTHENTICATOR,
    ENC_TGS_REP_PART,
    KRB_ERROR,
    TGS_REP,
    TGS_REQ,
    ApReq,
    Authenticator,
    ChecksumData,
    EncKdcRepPart,
    EncryptedData,
    EncryptionKeyData,
    KdcRep,
    KdcReq,
    KdcReqBody,
    KrbError,
    PaData,
    decode_tagged,
    encode_tagged,
    flags_of,
    name_of,
    string,
    text_of,
    time_of,
    tlv,
)

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
REALM = "EXAMPLE.TEST"
CLIENT = "WebApp01$"
ACCOUNT = "webapp01@example.test"
_CHECKSUM_USAGE, _AUTHENTICATOR_USAGE = 6, 7
_HMAC_SHA1_96_AES256 = 16


@dataclass
class Client:
    """A program with a decoy. What is set here is what it sends; None leaves it out."""

    lease_key: EncryptionKey
    decoy: Decoy
    now: datetime = NOW
    realm: str = REALM
    target: str = REALM
    name_type: int = 1
    options: int = 0x00010000
    padata: tuple[tuple[int, bytes], ...] = ()
    proofs: int = 1
    client: str = CLIENT
    client_realm: str = REALM
    checksum_type: int | None = _HMAC_SHA1_96_AES256
    checksum: bytes | None = None
    subkey: EncryptionKey | None = None
    till: datetime | None = None
    enctypes: tuple[int, ...] = (18, 17)
    additional: tuple[bytes, ...] = ()
    nonce: int = 0x7FFFFFFF
    version: int = 5
    microsecond: int = 1
    ticket: bytes | None = None

    @classmethod
    def make(cls, lease_key: EncryptionKey, **more: Any) -> Client:
        """Return one with a decoy of its own."""
        return cls(lease_key, new_decoy(ACCOUNT, f"{CLIENT}@{REALM}", NOW), **more)

    def request(self, *parts: str) -> bytes:
        """Return the TGS-REQ for a service."""
        body = KdcReqBody(
            kdc_options=flags_of(self.options),
            cname=None,
            realm=string(self.realm),
            sname=name_of(self.name_type, parts) if parts else None,
            from_time=None,
            till=time_of(self.till or self.now + timedelta(days=1)),
            rtime=None,
            nonce=self.nonce,
            etype=list(self.enctypes),
            addresses=None,
            enc_authorization_data=None,
            additional_tickets=[tlv(each) for each in self.additional] or None,
        )
        data = asn1.encode_der(body)
        proof = PaData(padata_type=1, padata_value=self._proof(data))
        others = [PaData(padata_type=kind, padata_value=value) for kind, value in self.padata]
        return encode_tagged(
            TGS_REQ,
            KdcReq(
                pvno=self.version,
                msg_type=12,
                padata=[proof] * self.proofs + others or None,
                req_body=tlv(data),
            ),
        )

    def _proof(self, body: bytes) -> bytes:
        key = self.decoy.key
        checksum = None
        if self.checksum_type is not None:
            value = self.checksum or key.checksum(_CHECKSUM_USAGE, body)
            checksum = ChecksumData(cksumtype=self.checksum_type, checksum=value)
        subkey = self.subkey and EncryptionKeyData(
            keytype=self.subkey.enctype, keyvalue=self.subkey.value
        )
        authenticator = Authenticator(
            authenticator_vno=5,
            crealm=string(self.client_realm),
            cname=name_of(1, self.client.split("/")),
            cksum=checksum,
            cusec=self.microsecond,
            ctime=time_of(self.now),
            subkey=subkey,
            seq_number=None,
            authorization_data=None,
        )
        plain = encode_tagged(AUTHENTICATOR, authenticator)
        ticket = self.ticket or decoy_ticket(self.decoy, self.lease_key, self.target)
        request = ApReq(
            pvno=5,
            msg_type=14,
            ap_options=BitString(bytes(4), 0),
            ticket=tlv(ticket),
            authenticator=EncryptedData(
                etype=key.enctype, kvno=None, cipher=key.encrypt(_AUTHENTICATOR_USAGE, plain)
            ),
        )
        return encode_tagged(AP_REQ, request)

    def reply(self, data: bytes) -> tuple[KdcRep, EncKdcRepPart]:
        """Return a TGS-REP and what is encrypted in it."""
        found = decode_tagged(KdcRep, TGS_REP, data)
        assert (found.pvno, found.msg_type) == (5, 13)  # RFC 4120 5.4.2; others are no replies
        key, usage = (self.decoy.key, 8) if self.subkey is None else (self.subkey, 9)
        plain = key.decrypt(usage, found.enc_part.cipher)
        return found, decode_tagged(EncKdcRepPart, ENC_TGS_REP_PART, plain)


def error_of(data: bytes) -> int:
    """Return the code of a KRB-ERROR."""
    found = decode_tagged(KrbError, KRB_ERROR, data)
    assert (found.pvno, found.msg_type) == (5, 30)  # RFC 4120 5.9.1
    return found.error_code


def parts_of(name: Any) -> tuple[str, ...]:
    """Return the parts of a principal's name."""
    return tuple(text_of(part) for part in name.name_string)
