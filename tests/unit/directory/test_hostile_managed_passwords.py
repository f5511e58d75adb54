"""Blobs as a hostile or broken controller could send them, made from valid ones.

A million of them with ``make unit INPUT=all``. Chance is seeded: a blob that fails is found again.
"""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from credspec.directory.managed_password import PASSWORD_BYTES, ManagedPassword
from credspec.errors import CredspecError
from support.suite.generated_input import share_of

BLOBS = share_of(1_000_000)
NOW = datetime(2026, 11, 23, tzinfo=UTC)
# Offsets and lengths at which readers go wrong.
EDGES = (0, 1, 2, 12, 15, 16, 17, 255, 256, 257, 272, 274, 282, 289, 290, 291, 530, 532, 540, 547,
         548, 549, 4096, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF)  # fmt: skip
LENGTHS = (*EDGES, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
INTERVALS = (0, 1, -1, 2**63 - 1, -(2**63), 3 * 10**9, 36 * 10**9, 864 * 10**9)


def valid_blobs(chance: random.Random) -> list[bytes]:
    one, two = (chance.randbytes(PASSWORD_BYTES) for _ in range(2))
    hours = timedelta(hours=20)
    return [
        ManagedPassword(one, None, hours, hours).pack(),
        ManagedPassword(one, two, hours, hours).pack(),
    ]


def hostile_blobs(chance: random.Random, count: int) -> Iterator[bytes]:
    """Yield blobs with one to three faults each: cut, longer, lying about lengths and offsets."""
    valid = valid_blobs(chance)
    pick, below = chance.choice, chance.randrange
    for _ in range(count):
        blob = bytearray(pick(valid))
        for _ in range(below(1, 4)):
            fault = below(8)
            if fault == 0:
                del blob[below(len(blob) + 1) :]
            elif fault == 1:
                blob += chance.randbytes(pick((1, 2, 6, 300, 4096)))
            elif fault == 2 and len(blob) >= 2:
                struct.pack_into("<H", blob, 0, pick((0, 2, 0x100, 0xFFFF)))
            elif fault == 3 and len(blob) >= 8:
                struct.pack_into("<I", blob, 4, pick(LENGTHS))
            elif fault in {4, 5} and len(blob) >= 16:
                struct.pack_into("<H", blob, pick((8, 10, 12, 14)), pick(EDGES))
            elif fault == 6 and len(blob) >= 24:
                struct.pack_into("<q", blob, pick((len(blob) - 8, len(blob) - 16)), pick(INTERVALS))
            elif blob:
                blob[below(len(blob))] = below(256)
        yield bytes(blob)


def outcome(blob: bytes) -> str:
    """Read a blob; return what came of it. Nothing but a sound password or our error may."""
    try:
        found = ManagedPassword.unpack(blob)
    except CredspecError as error:
        assert error.code == "managed-password-malformed", blob.hex()
        return error.code
    assert len(found.current) == PASSWORD_BYTES, blob.hex()
    assert found.previous is None or len(found.previous) == PASSWORD_BYTES, blob.hex()
    # What it is used for: a date to come.
    assert found.query_interval + NOW >= NOW, blob.hex()
    assert found.unchanged_interval + NOW >= NOW, blob.hex()
    assert found.current in blob, blob.hex()
    return "read"


def test_blobs_with_faults() -> None:
    outcomes = Counter(map(outcome, hostile_blobs(random.Random(20261123), BLOBS)))
    assert outcomes.total() == BLOBS
    # Some faults change only the password's bytes; both ways must have been walked often.
    assert min(outcomes["read"], outcomes["managed-password-malformed"]) > BLOBS / 20


def test_none_of_them_takes_memory_beyond_its_own_size() -> None:
    blobs = list(hostile_blobs(random.Random(7), 5_000))
    for blob in blobs[:100]:
        outcome(blob)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for blob in blobs:
            outcome(blob)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 64 * 1024
    assert after - before < 16 * 1024
