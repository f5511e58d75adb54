"""Credential caches that containers may have written: read, or refused, and nothing else."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.kerberos.ccache_reader import MOST_BYTES, CacheMalformedError, read_ccache
from credspec.kerberos.service_credentials import ServiceTicket, services_ccache
from credspec.kerberos.service_names import ServiceName

START = datetime(2026, 11, 27, tzinfo=UTC)
CLIENT = "WebApp01$@A.TEST"


def ticket(text: str, realm: str = "A.TEST", minutes: int = 10) -> ServiceTicket:
    service = ServiceName.parse(text)
    assert service is not None
    end = START + timedelta(minutes=minutes)
    return ServiceTicket(
        service, CLIENT, realm, START, START, end, 0x40000, 18, b"k" * 32, b"t" * 900
    )


def test_a_cache_reads_as_it_was_written() -> None:
    data = services_ccache(CLIENT, [ticket("HTTP/WWW.a.test"), ticket("cifs/x", "B.TEST", 60)])
    found = read_ccache(data)
    assert found.principal == CLIENT
    assert [(record.server, record.end - START) for record in found.records] == [
        ("HTTP/www.a.test@A.TEST", timedelta(minutes=10)),
        ("HTTP/WWW.a.test@A.TEST", timedelta(minutes=10)),
        ("cifs/x@B.TEST", timedelta(minutes=60)),
        # A client that knows no realm of the host asks for it in its own.
        ("cifs/x@A.TEST", timedelta(minutes=60)),
    ]
    assert {record.client for record in found.records} == {CLIENT}
    assert data.endswith(b"".join(record.data for record in found.records))
    assert "kkk" not in repr(found)


@pytest.mark.parametrize("cut", range(1, 200, 7))
def test_one_that_is_cut_off_is_malformed(cut: int) -> None:
    with pytest.raises(CacheMalformedError):
        read_ccache(services_ccache(CLIENT, [ticket("cifs/x")])[:-cut])


def test_another_version_and_one_too_long_are_malformed() -> None:
    for data in (b"", b"\x05\x03", b"\x05", services_ccache(CLIENT, []) + bytes(MOST_BYTES)):
        with pytest.raises(CacheMalformedError):
            read_ccache(data)


def test_what_would_take_long_to_read_is_malformed() -> None:
    empty = services_ccache(CLIENT, [])
    one = services_ccache(CLIENT, [ticket("cifs/x")])[len(empty) :]
    assert len(read_ccache(empty + one * 1024).records) == 1024
    with pytest.raises(CacheMalformedError):
        read_ccache(empty + one * 1025)
    with pytest.raises(CacheMalformedError):
        read_ccache(empty[:4] + b"\0\0\0\1" + b"\0\0\0\x11" + bytes(400))


@given(st.data())
def test_what_a_container_made_of_it_is_read_or_malformed(data: st.DataObject) -> None:
    good = bytearray(services_ccache(CLIENT, [ticket("cifs/x"), ticket("HTTP/y")]))
    for _ in range(data.draw(st.integers(1, 8))):
        good[data.draw(st.integers(2, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read_ccache(bytes(good))
    except CacheMalformedError:
        return
    assert sum(len(record.data) for record in found.records) < len(good)


@given(st.binary(max_size=300).map(lambda data: b"\x05\x04\x00\x00" + data))
def test_any_bytes_are_read_or_malformed(data: bytes) -> None:
    with contextlib.suppress(CacheMalformedError):
        read_ccache(data)
