"""Libraries of ASN.1 with the broker's requests: time to decode one, and what hostile ones do.

    PYTHONPATH=src:tests python benchmarks/asn1.py    # in an environment with those to compare

Each decodes the TGS-REQ down to the name of the service. Hostile input is the same for all of them:
messages that were changed by chance, and lengths, nestings and numbers that are meant to hurt.
"""

from __future__ import annotations

import random
import signal
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator

from credspec.kerberos.kdc.encryption import EncryptionKey
from credspec.kerberos.kdc.messages import (
    SEQUENCE,
    TGS_REQ,
    KdcReq,
    KdcReqBody,
    decode,
    decode_tagged,
    der,
    text_of,
)
from support.domain.decoy_client import Client

TIMES, MUTATIONS, LONGEST = 300, 300, 1
SCHEMA = """
K DEFINITIONS EXPLICIT TAGS ::= BEGIN
Name ::= SEQUENCE { t [0] INTEGER, s [1] SEQUENCE OF GeneralString }
PaData ::= SEQUENCE { t [1] INTEGER, v [2] OCTET STRING }
Enc ::= SEQUENCE { e [0] INTEGER, k [1] INTEGER OPTIONAL, c [2] OCTET STRING }
Address ::= SEQUENCE { t [0] INTEGER, a [1] OCTET STRING }
Body ::= SEQUENCE {
  options [0] BIT STRING, cname [1] Name OPTIONAL, realm [2] GeneralString,
  sname [3] Name OPTIONAL, f [4] GeneralizedTime OPTIONAL, till [5] GeneralizedTime,
  r [6] GeneralizedTime OPTIONAL, nonce [7] INTEGER, etype [8] SEQUENCE OF INTEGER,
  addresses [9] SEQUENCE OF Address OPTIONAL, authz [10] Enc OPTIONAL }
Req ::= [APPLICATION 12] SEQUENCE {
  pvno [1] INTEGER, kind [2] INTEGER, padata [3] SEQUENCE OF PaData OPTIONAL, body [4] Body }
END
"""

Decoder = Callable[[bytes], str]


def cryptography() -> Decoder:
    """Return what credspec does."""

    def read(data: bytes) -> str:
        request = decode_tagged(KdcReq, TGS_REQ, data)
        body = decode(KdcReqBody, der(SEQUENCE, request.req_body.data))
        return "/".join(map(text_of, body.sname.name_string)) if body.sname else ""

    return read


def asn1tools() -> Decoder:
    """Return a decoder that is made of a schema at run time."""
    import asn1tools as library

    schema = library.compile_string(SCHEMA, "der")
    return lambda data: "/".join(schema.decode("Req", data)["body"]["sname"]["s"])


def asn1crypto() -> Decoder:
    """Return a decoder of classes that read lazily."""
    from asn1crypto import core

    def sequence(name: str, fields: list[tuple[int, type, bool]]) -> type:
        listed = [
            (f"f{tag}", kind, {"explicit": tag} | ({"optional": True} if optional else {}))
            for tag, kind, optional in fields
        ]
        return type(name, (core.Sequence,), {"_fields": listed})

    def of(kind: type) -> type:
        return type("Of", (core.SequenceOf,), {"_child_spec": kind})

    name = sequence("Name", [(0, core.Integer, False), (1, of(core.GeneralString), False)])
    padata = sequence("PaData", [(1, core.Integer, False), (2, core.OctetString, False)])
    moment = core.GeneralizedTime
    body = sequence(
        "Body",
        [
            *((0, core.BitString, False), (1, name, True), (2, core.GeneralString, False)),
            *((3, name, True), (4, moment, True), (5, moment, False), (6, moment, True)),
            *((7, core.Integer, False), (8, of(core.Integer), False)),
        ],
    )
    request = sequence(
        "Req",
        [
            *((1, core.Integer, False), (2, core.Integer, False)),
            *((3, of(padata), True), (4, body, False)),
        ],
    )
    request.explicit = ((1, 12),)  # type: ignore[attr-defined]

    def read(data: bytes) -> str:
        found = request.load(data, strict=True)  # type: ignore[attr-defined]
        found.native  # noqa: B018 - it reads when it is looked at
        return "/".join(found["f4"]["f3"]["f1"].native)

    return read


def pyasn1() -> Decoder:
    """Return a decoder of pyasn1, with a specification in Python."""
    from pyasn1.codec.der.decoder import decode as decode_der
    from pyasn1.type import char, namedtype, tag, univ, useful

    def tagged(kind: object, number: int) -> object:
        return kind.subtype(  # type: ignore[attr-defined]
            explicitTag=tag.Tag(tag.tagClassContext, tag.tagFormatSimple, number)
        )

    def sequence(*fields: tuple[int, object, bool]) -> univ.Sequence:
        types = [
            (namedtype.OptionalNamedType if optional else namedtype.NamedType)(
                f"f{number}", tagged(kind, number)
            )
            for number, kind, optional in fields
        ]
        return univ.Sequence(componentType=namedtype.NamedTypes(*types))

    def of(kind: object) -> univ.SequenceOf:
        return univ.SequenceOf(componentType=kind)

    name = sequence((0, univ.Integer(), False), (1, of(char.GeneralString()), False))
    padata = sequence((1, univ.Integer(), False), (2, univ.OctetString(), False))
    moment = useful.GeneralizedTime()
    body = sequence(
        *((0, univ.BitString(), False), (1, name, True), (2, char.GeneralString(), False)),
        *((3, name, True), (4, moment, True), (5, moment, False), (6, moment, True)),
        *((7, univ.Integer(), False), (8, of(univ.Integer()), False)),
    )
    plain = sequence(
        *((1, univ.Integer(), False), (2, univ.Integer(), False)),
        *((3, of(padata), True), (4, body, False)),
    )
    request = plain.subtype(
        explicitTag=tag.Tag(tag.tagClassApplication, tag.tagFormatConstructed, 12)
    )

    def read(data: bytes) -> str:
        found, rest = decode_der(data, asn1Spec=request)
        if rest:
            raise ValueError("more")
        return "/".join(str(part) for part in found["f4"]["f3"]["f1"])

    return read


def hostile(message: bytes) -> Iterator[bytes]:
    """Yield changed messages, and some that are made to hurt."""
    chance = random.Random(20)  # noqa: S311 - the same for all
    for _ in range(MUTATIONS):
        changed = bytearray(message)
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        yield bytes(changed)
    yield b"\x30\x80" * 30_000
    yield b"\x6c\x84\xff\xff\xff\xff"
    nested = b""
    for _ in range(8000):
        nested = der(SEQUENCE, nested)
    yield der(TGS_REQ, nested)
    number = b"\x02\x82\xff\x00" + bytes([0x7F]) * 0xFF00
    yield der(TGS_REQ, der(SEQUENCE, der(0xA1, number)))


def measure(name: str, make: Callable[[], Decoder], message: bytes) -> str:
    """Return a line about one library."""
    try:
        read = make()
    except ImportError:
        return f"{name:14} not installed"
    assert read(message) == "ldap/dc1.example.test"  # noqa: S101 - it must work at all
    took = []
    for _ in range(TIMES):
        started = time.perf_counter()
        read(message)
        took.append(time.perf_counter() - started)
    errors: set[str] = set()
    worst = 0.0
    tracemalloc.start()
    for data in hostile(message):
        started = time.perf_counter()
        signal.alarm(LONGEST)
        try:
            read(data)
        except Exception as error:  # noqa: BLE001 - which ones is what is asked
            errors.add(type(error).__name__)
        finally:
            signal.alarm(0)
        worst = max(worst, time.perf_counter() - started)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return (
        f"{name:14} {statistics.median(took) * 1e6:7.0f} us; hostile: worst {worst * 1e3:.0f} ms, "
        f"{peak / 1024:.0f} KiB, raises {', '.join(sorted(errors))}"
    )


def _too_long(*_: object) -> None:
    raise TimeoutError


def main() -> None:
    """Print a line for each library."""
    signal.signal(signal.SIGALRM, _too_long)
    message = Client.make(EncryptionKey.random()).request("ldap", "dc1.example.test")
    for make in (cryptography, asn1tools, asn1crypto, pyasn1):
        print(measure(make.__name__, make, message), flush=True)


if __name__ == "__main__":
    main()
