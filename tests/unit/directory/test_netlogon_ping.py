"""Anyone may send such datagrams: nothing but an answer or our errors may come out."""

from __future__ import annotations

import struct
import uuid

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from credspec.directory.netlogon_ping import (
    MAX_ANSWER_BYTES,
    ControllerFlag,
    NetlogonAnswer,
    ping_request,
)
from credspec.errors import CredspecError
from support.domain.netlogon_datagrams import (
    answer,
    datagram_of,
    done,
    entry_of,
    message_id_of,
    tlv,
    value_of,
)

# A Samba 4.22 domain controller's answer to ping_request("example.test", 0x1234567).
CAPTURED = bytes.fromhex(
    "307c020401234567647404003070306e04086e65746c6f676f6e3162046017000000fdd30100bcc4a087ce14194d"
    "baf64f370737562c076578616d706c65047465737400c01803646331c018074558414d504c450003444331000017"
    "44656661756c742d46697273742d536974652d4e616d6500c03d05000000ffffffff300f02040123456765070a01"
    "0004000400"
)
# The same with the controller's address, asked with NETLOGON_NT_VERSION_5EX_WITH_IP.
CAPTURED_WITH_ADDRESS = bytes.fromhex(
    "30818c0201076481860400308181307f04086e65746c6f676f6e3173047117000000fdd30100bcc4a087ce14194d"
    "baf64f370737562c076578616d706c65047465737400c01803646331c018074558414d504c450003444331000017"
    "44656661756c742d46697273742d536974652d4e616d6500c03d10020000000ad5000a00000000000000000d0000"
    "00ffffffff300c02010765070a010004000400"
)
# Its answer when it does not serve the domain that was asked for.
CAPTURED_EMPTY = bytes.fromhex("300c02010565070a010004000400")

SITE = "Default-First-Site-Name"
START = 24

labels = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="."),
    min_size=1,
    max_size=15,
)
dns_names = st.lists(labels, min_size=1, max_size=3).map(".".join)
names_or_none = st.just("") | labels
said = st.builds(
    NetlogonAnswer,
    flags=st.integers(0, 2**32 - 1).map(ControllerFlag),
    domain_guid=st.uuids(),
    forest=dns_names,
    domain=dns_names,
    host=dns_names,
    netbios_domain=labels,
    netbios_host=labels,
    controller_site=names_or_none,
    client_site=names_or_none,
    next_closest_site=names_or_none,
    is_paused=st.booleans(),
)


def refused(datagram: bytes, message_id: int | None = None) -> str:
    with pytest.raises(CredspecError) as caught:
        NetlogonAnswer.unpack(datagram, message_id=message_id)
    return caught.value.code


def of_names(names: bytes, version: int = 5) -> bytes:
    """A datagram whose names are these bytes."""
    header = struct.pack("<HHI16s", 23, 0, 0x100, bytes(16))
    return entry_of(header + names + struct.pack("<IHH", version, 0xFFFF, 0xFFFF), 1)


@given(said, st.booleans(), st.booleans(), st.none() | st.binary(max_size=16))
def test_round_trip(
    expected: NetlogonAnswer, compress: bool, long_form: bool, address: bytes | None
) -> None:
    value = value_of(expected, compress=compress, socket_address=address)
    datagram = entry_of(value, 77, long_form=long_form) + done(77)
    assert NetlogonAnswer.unpack(datagram, message_id=77) == expected
    # The result may come in a datagram of its own.
    assert NetlogonAnswer.unpack(entry_of(value, 77)) == expected


@pytest.mark.parametrize("datagram", [CAPTURED, CAPTURED_WITH_ADDRESS])
def test_what_samba_sends(datagram: bytes) -> None:
    found = NetlogonAnswer.unpack(datagram)
    assert found == NetlogonAnswer(
        flags=ControllerFlag(0x1D3FD),
        domain_guid=uuid.UUID("87a0c4bc-14ce-4d19-baf6-4f370737562c"),
        forest="example.test",
        domain="example.test",
        host="dc1.example.test",
        netbios_domain="EXAMPLE",
        netbios_host="DC1",
        controller_site=SITE,
        client_site=SITE,
    )
    assert found.is_writable
    assert found.is_closest


def test_samba_of_another_domain_says_nothing() -> None:
    assert refused(CAPTURED_EMPTY, 5) == "netlogon-answer-empty"
    assert refused(CAPTURED_EMPTY, 6) == "netlogon-answer-malformed"


def test_an_entry_without_a_value_says_nothing() -> None:
    number = tlv(2, b"\x01")
    bare = tlv(0x30, number + tlv(0x64, tlv(4, b"") + tlv(0x30, b"")))
    valueless = tlv(0x30, tlv(4, b"NetLogon") + tlv(0x31, b""))
    named = tlv(0x30, number + tlv(0x64, tlv(4, b"") + tlv(0x30, valueless)))
    for entry in (bare, named, entry_of(b"", 1)):
        assert refused(entry + done(1), 1) == "netlogon-answer-empty"


def test_the_request_byte_by_byte() -> None:
    """RFC 4511 4.5.1: base search of the root, (&(DnsDomain=a.test)(NtVer=...)), NetLogon."""
    assert ping_request("a.test", 1) == bytes.fromhex(
        "3048 020101 6343 0400 0a0100 0a0100 020100 020100 010100"
        "a024 a313 0409 446e73446f6d61696e 0406 612e74657374 a30d 0405 4e74566572 0404 16000000"
        "300a 0408 4e65744c6f676f6e"
    )


@given(st.integers(1, 2**31 - 1), st.sampled_from(["a.test", "x" * 60 + ".test", "a." * 120 + "b"]))
def test_the_request_carries_its_message_id(message_id: int, domain: str) -> None:
    request = ping_request(domain, message_id)
    assert message_id_of(request) == message_id
    assert domain.encode() in request


@pytest.mark.parametrize("message_id", [0, -1, 2**31])
def test_message_ids_outside_the_range(message_id: int) -> None:
    with pytest.raises(ValueError, match="message id"):
        ping_request("a.test", message_id)


@given(st.binary(max_size=300))
def test_garbage_is_refused(data: bytes) -> None:
    assert refused(data) == "netlogon-answer-malformed"


labels = st.binary(max_size=8).map(lambda label: bytes([len(label)]) + label + b"\0"[: len(label)])


@given(
    st.binary(max_size=200) | st.lists(labels, min_size=8, max_size=8).map(b"".join),
    st.integers(0, 31),
)
@example(bytes(8), 1)
@example(b"\1a\0" * 8, 1)
def test_garbage_in_a_well_formed_frame(names: bytes, version: int) -> None:
    """Names are the part with pointers; it gives an answer of printable text, or our error."""
    try:
        found = NetlogonAnswer.unpack(of_names(names, version))
    except CredspecError as error:
        assert error.code == "netlogon-answer-malformed"
    else:
        assert (found.forest + found.client_site).isprintable()


@given(said, st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4))
def test_changed_bytes_give_an_answer_or_our_error(
    expected: NetlogonAnswer, changes: list[tuple[int, int]]
) -> None:
    datagram = bytearray(datagram_of(expected, 1))
    for index, byte in changes:
        datagram[index % len(datagram)] = byte
    try:
        NetlogonAnswer.unpack(bytes(datagram))
    except CredspecError as error:
        assert error.code in {"netlogon-answer-malformed", "netlogon-answer-empty"}


# The entry without the result, 126 bytes, is complete.
@pytest.mark.parametrize("length", [n for n in range(len(CAPTURED)) if n != 126])
def test_truncation_is_refused(length: int) -> None:
    assert refused(CAPTURED[:length]) == "netlogon-answer-malformed"


def at(offset: int) -> bytes:
    return struct.pack(">H", 0xC000 | offset)


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(at(START) + bytes(7), id="at itself"),
        pytest.param(b"\1a" + at(START) + bytes(7), id="at the name it is in"),
        pytest.param(at(START + 2) + at(START) + bytes(7), id="at each other"),
        pytest.param(b"\1a\0" + at(START + 40) + bytes(40), id="forward"),
        pytest.param(b"\1a\0" + at(0) + bytes(6), id="into the header"),
        pytest.param(b"\1a\0" + at(0x3FFF) + bytes(6), id="outside"),
        pytest.param(bytes(7) + b"\xc0", id="half a pointer"),
        pytest.param(b"\x40" + b"a" * 64 + bytes(8), id="a reserved label type"),
        pytest.param(b"\x80" + b"a" * 128 + bytes(8), id="another reserved label type"),
        pytest.param((b"\x3f" + b"a" * 63) * 4 + bytes(8), id="256 bytes"),
        pytest.param(bytes(7) + b"\x05abc", id="a label that leaves the value"),
        pytest.param(bytes(7) + b"\x03abc", id="a name without an end"),
        pytest.param(bytes(7), id="a name too few"),
        pytest.param(bytes(10), id="a name too many"),
        pytest.param(b"\1\xff" + bytes(8), id="no UTF-8"),
        pytest.param(b"\2a\n" + bytes(8), id="a line feed"),
    ],
)
def test_names_that_are_refused(names: bytes) -> None:
    assert refused(of_names(names)) == "netlogon-answer-malformed"


def test_names_beyond_the_first_256_bytes_are_pointed_to() -> None:
    """As in a domain of long names, whose controllers would seem silent otherwise."""
    forest = ".".join(["f" * 60] * 3 + ["test"])
    expected = answer(forest=forest, domain="d" * 60 + ".example", host="h" * 60 + ".example")
    value = value_of(expected)
    assert value.index(b"\x07example") > 255
    assert NetlogonAnswer.unpack(datagram_of(expected, 1)) == expected


def test_chains_of_pointers_end() -> None:
    """As many as fit, each to the one before, and all of it for every name."""
    chain = b"\1a\0" + b"".join(at(START + max(0, 2 * i + 1)) for i in range(1, 1900))
    assert refused(of_names(chain)) == "netlogon-answer-malformed"


def test_a_compressed_name_may_not_be_long_either() -> None:
    long = (b"\x3f" + b"a" * 63) * 3
    names = long + b"\0" + b"\x3f" + b"b" * 63 + at(START) + bytes(6)
    assert refused(of_names(names)) == "netlogon-answer-malformed"


VALUE = value_of(answer())


@pytest.mark.parametrize(
    "datagram",
    [
        pytest.param(done(1, code=1), id="a failed search"),
        pytest.param(entry_of(VALUE, 1) + done(1, code=2), id="a failed search with an entry"),
        pytest.param(entry_of(VALUE, 1) + done(2), id="a result of another search"),
        pytest.param(entry_of(VALUE, 1) + entry_of(VALUE, 1), id="two entries"),
        pytest.param(entry_of(VALUE, 1) + done(1) + b"\0", id="something behind"),
        pytest.param(entry_of(VALUE, 1).replace(b"netlogon", b"netlogin"), id="not NetLogon"),
        pytest.param(entry_of(b"\x13" + VALUE[1:], 1), id="another opcode"),
        pytest.param(entry_of(VALUE[:-1] + b"\0", 1), id="another token"),
        pytest.param(entry_of(VALUE[:-8] + b"\2" + VALUE[-7:], 1), id="another version"),
        pytest.param(entry_of(VALUE[:20], 1), id="a short value"),
        pytest.param(b"\x30\x80" + entry_of(VALUE, 1)[2:] + b"\0\0", id="an indefinite length"),
        pytest.param(b"\x30\x88" + bytes(7) + b"\0", id="a length of eight bytes"),
        pytest.param(b"\x30\x84\xff\xff\xff\xff", id="a length of four gigabytes"),
        pytest.param(entry_of(VALUE + bytes(MAX_ANSWER_BYTES), 1), id="too long"),
    ],
)
def test_frames_that_are_refused(datagram: bytes) -> None:
    assert refused(datagram, 1) == "netlogon-answer-malformed"


def test_what_the_flags_and_sites_mean() -> None:
    assert not answer(flags=ControllerFlag.READ_ONLY).is_writable
    assert not answer().is_closest
    assert answer(controller_site="near").is_closest
    assert answer(flags=ControllerFlag.CLOSEST).is_closest
    assert not answer(controller_site="", client_site="").is_closest
