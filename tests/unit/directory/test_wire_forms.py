"""SIDs, security descriptors, filters and account names."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.directory.account_identity import valid_account_name
from credspec.directory.connection import escape
from credspec.directory.security_descriptor import allowed_readers
from credspec.directory.security_identifier import sid_to_text
from credspec.errors import CredspecError, UsageError

ADMINISTRATORS = bytes.fromhex("01020000000000052000000020020000")


def descriptor(*aces: bytes) -> bytes:
    acl = struct.pack("<BBHHH", 2, 0, 8 + sum(map(len, aces)), len(aces), 0) + b"".join(aces)
    return struct.pack("<BBHIIII", 1, 0, 0x8004, 0, 0, 0, 20) + acl


def ace(kind: int, mask: int, sid: bytes) -> bytes:
    return struct.pack("<BBHI", kind, 0, 8 + len(sid), mask) + sid


def test_sid() -> None:
    assert sid_to_text(ADMINISTRATORS) == "S-1-5-32-544"


@given(st.binary(max_size=80))
def test_sid_garbage(data: bytes) -> None:
    try:
        assert sid_to_text(data).startswith("S-1-")
    except CredspecError as error:
        assert error.code == "sid-malformed"


def test_only_allowed_readers_count() -> None:
    everyone = bytes.fromhex("010100000000000100000000")
    value = descriptor(
        ace(0, 0x000F01FF, ADMINISTRATORS),  # allowed, all rights
        ace(1, 0x000F01FF, everyone),  # denied
        ace(0, 0x20, everyone),  # allowed to write only
    )
    assert allowed_readers(value) == ("S-1-5-32-544",)


def test_no_access_list_means_nobody_that_we_can_name() -> None:
    assert allowed_readers(struct.pack("<BBHIIII", 1, 0, 0x8000, 0, 0, 0, 0)) == ()


@given(st.binary(max_size=200))
def test_descriptor_garbage(data: bytes) -> None:
    try:
        allowed_readers(data)
    except CredspecError as error:
        assert error.code in {"security-descriptor-malformed", "sid-malformed"}


@given(st.text())
def test_escaped_values_cannot_end_a_filter(value: str) -> None:
    escaped = escape(value)
    assert not set("()*\0") & set(escaped)
    assert escaped.isascii()


def test_escape_follows_rfc_4515() -> None:
    assert escape("a*(b)\\\0é") == r"a\2a\28b\29\5c\00\c3\a9"


@pytest.mark.parametrize("name", ["WebApp01", "WebApp01$", "web-app_1.x", "ünï", "a)(b"])
def test_account_names(name: str) -> None:
    assert valid_account_name(name) == name.removesuffix("$")


@pytest.mark.parametrize(
    "name", ["", "$", ".", "..", "a/b", "a\\b", "a\nb", "a*", "a@b", "a b", "a\0", "x" * 70]
)
def test_names_that_are_no_account(name: str) -> None:
    with pytest.raises(UsageError, match="account-name-invalid"):
        valid_account_name(name)
