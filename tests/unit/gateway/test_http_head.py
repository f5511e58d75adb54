from __future__ import annotations

import string
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.gateway.http_head import MalformedHeadError, RequestHead

CREATE = b"POST /v1.41/containers/create?name=x HTTP/1.1\r\nHost: d\r\nX-A:  b \r\nx-a: c\r\n\r\n"

names = st.text(string.ascii_letters + string.digits + "-", min_size=1, max_size=20)
values = st.text(string.printable.replace("\r", "").replace("\n", ""), max_size=40)


def test_a_head_comes_back_byte_for_byte() -> None:
    head = RequestHead.unpack(CREATE)
    assert (head.method, head.target) == ("POST", "/v1.41/containers/create?name=x")
    assert head.values("X-A") == ["b", "c"]
    assert head.pack() == CREATE


@given(st.lists(st.tuples(names, values), max_size=10))
def test_any_head_comes_back_byte_for_byte(fields: list[tuple[str, str]]) -> None:
    lines = "".join(f"{name}:{value}\r\n" for name, value in fields)
    data = f"GET /info HTTP/1.0\r\n{lines}\r\n".encode()
    assert RequestHead.unpack(data).pack() == data


@given(st.binary(max_size=200))
def test_rubbish_is_a_malformed_head_and_nothing_else(data: bytes) -> None:
    with suppress(MalformedHeadError):
        RequestHead.unpack(data + b"\r\n\r\n")


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"GET /  HTTP/1.1\r\n\r\n",
        b"get / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : d\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\nContent-Length: 5\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\rContent-Length: 5\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\0c\r\n\r\n",
        b"GET /\r HTTP/1.1\r\nA: b\r\n\r\n",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedHeadError):
        RequestHead.unpack(data)


def test_fields_are_replaced_whatever_their_letter_case_and_number() -> None:
    head = RequestHead.unpack(CREATE).with_fields(X_A="d", Host=None, Connection="close")
    assert head.values("x-a") == ["d"]
    assert head.values("host") == []
    assert b"Connection: close\r\n" in head.pack()


def test_upgrade() -> None:
    data = b"POST /session HTTP/1.1\r\nupgrade: h2c\r\n\r\n"
    assert RequestHead.unpack(data).upgrades
    assert not RequestHead.unpack(CREATE).upgrades


@pytest.mark.parametrize(
    ("fields", "has_body"),
    [
        ("", False),
        ("Content-Length: 0\r\n", False),
        ("Content-Length: 10\r\n", True),
        ("content-length: 00\r\nContent-Length: 3\r\n", True),
        ("Transfer-Encoding: chunked\r\n", True),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", True),
    ],
)
def test_a_body_is_announced_by_either_field(fields: str, *, has_body: bool) -> None:
    """What would be taken for the next request otherwise."""
    head = RequestHead.unpack(f"POST /x HTTP/1.1\r\n{fields}\r\n".encode())
    assert head.has_body is has_body
