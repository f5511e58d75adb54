"""The LDAP ping of a domain controller: one datagram asked, one answered (MS-ADTS 6.3.3).

No input or output here: `ping_request` makes the datagram to send to UDP port 389, and
`NetlogonAnswer.unpack` reads the one that comes back. Nobody signs it, so it may choose between
controllers that DNS has named, and must never tell who one of them is.
"""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass
from enum import IntFlag
from typing import Final, Self

from credspec.errors import CredspecError

MAX_ANSWER_BYTES: Final = 4096
"""Longest answer that is read, in bytes: nine names of 255 bytes and their frame are shorter."""

_V5: Final = 0x2
_V5EX: Final = 0x4
_V5EX_WITH_IP: Final = 0x8
_WITH_CLOSEST_SITE: Final = 0x10
_NT_VERSION: Final = struct.Struct("<I")
_MESSAGE_IDS: Final = range(1, 1 << 31)

# Tags of BER as LDAP uses them (RFC 4511 4.2, 4.5).
_BOOLEAN: Final = 0x01
_INTEGER: Final = 0x02
_OCTETS: Final = 0x04
_ENUMERATED: Final = 0x0A
_SEQUENCE: Final = 0x30
_SET: Final = 0x31
_AND: Final = 0xA0
_EQUALITY: Final = 0xA3
_SEARCH_REQUEST: Final = 0x63
_SEARCH_ENTRY: Final = 0x64
_SEARCH_DONE: Final = 0x65
_LONG_FORM: Final = 0x80
_MAX_LENGTH_BYTES: Final = 4

_HEADER: Final = struct.Struct("<HHI16s")
_TAIL: Final = struct.Struct("<IHH")
_TOKEN: Final = 0xFFFF
_RESPONSE: Final = 23
_PAUSED: Final = 24
_USER_UNKNOWN: Final = 25
_POINTER: Final = 0xC0
_MAX_NAME_BYTES: Final = 255


class EmptyAnswerError(CredspecError):
    """A controller answers that it does not serve the domain: `netlogon-answer-empty`."""


class ControllerFlag(IntFlag):
    """What a domain controller says about itself: the `Flags` of its answer (MS-ADTS 6.3.1.2)."""

    PDC = 0x1
    GLOBAL_CATALOG = 0x4
    LDAP = 0x8
    DIRECTORY = 0x10
    KDC = 0x20
    TIME_SERVICE = 0x40
    CLOSEST = 0x80
    WRITABLE = 0x100
    GOOD_TIME_SERVICE = 0x200
    READ_ONLY = 0x800
    FULL_SECRETS = 0x1000


@dataclass(frozen=True, slots=True, kw_only=True)
class NetlogonAnswer:
    """A NETLOGON_SAM_LOGON_RESPONSE_EX (MS-ADTS 6.3.1.9); nothing in it is authenticated.

    Names are as the controller writes them, printable, and empty if it leaves them out; compare
    them without regard to case. `client_site` is the site that it finds for the asking address,
    `next_closest_site` the one to use where that has no controller. `is_paused` says that its
    Netlogon service takes no logons now.
    """

    flags: ControllerFlag
    domain_guid: uuid.UUID
    forest: str
    domain: str
    host: str
    netbios_domain: str
    netbios_host: str
    controller_site: str
    client_site: str
    next_closest_site: str = ""
    is_paused: bool = False

    @property
    def is_writable(self) -> bool:
        """Whether the controller holds a writable copy of the domain, so is no RODC."""
        return ControllerFlag.WRITABLE in self.flags

    @property
    def is_closest(self) -> bool:
        """Whether the controller is of the asking host's site, or stands in for one there."""
        same = self.client_site.casefold() == self.controller_site.casefold() != ""
        return same or ControllerFlag.CLOSEST in self.flags

    @classmethod
    def unpack(cls, datagram: bytes, *, message_id: int | None = None) -> Self:
        """Read a UDP datagram: an LDAP search entry with one NetLogon value, and the result.

        With `message_id`, it must be the answer to that request.

        Raises:
            CredspecError: `netlogon-answer-empty` if the answer is that there is none, as from a
                controller that does not serve the domain (MS-ADTS 6.3.3.3);
                `netlogon-answer-malformed` whatever is wrong with the bytes.
        """
        if len(datagram) > MAX_ANSWER_BYTES:
            raise _malformed("a datagram of another size", f"at most {MAX_ANSWER_BYTES} bytes")
        return cls._of_value(_netlogon_value(datagram, message_id))

    @classmethod
    def _of_value(cls, value: bytes) -> Self:
        if len(value) < _HEADER.size + _TAIL.size:
            raise _malformed(f"a value of {len(value)} bytes", "a header, names and a version")
        opcode, _, flags, guid = _HEADER.unpack_from(value)
        if opcode not in {_RESPONSE, _PAUSED, _USER_UNKNOWN}:
            raise _malformed(f"opcode {opcode}", "23, 24 or 25")
        # Which names there are is said at the end, whose length is fixed.
        end = len(value) - _TAIL.size
        version, *tokens = _TAIL.unpack_from(value, end)
        if not version & _V5EX or tokens != [_TOKEN, _TOKEN]:
            raise _malformed("an ending of another form", "a version and two tokens")
        names = _Names(value, end)
        forest, domain, host, netbios_domain, netbios_host, _user = (names.next() for _ in range(6))
        controller_site, client_site = names.next(), names.next()
        if version & _V5EX_WITH_IP:
            names.skip_counted()
        # Samba leaves it out, others may write it without a bit of the version that says so.
        next_closest_site = "" if names.is_at_end else names.next()
        if not names.is_at_end:
            raise _malformed("names that end elsewhere", "the version right after them")
        return cls(
            flags=ControllerFlag(flags),
            domain_guid=uuid.UUID(bytes_le=guid),
            forest=forest,
            domain=domain,
            host=host,
            netbios_domain=netbios_domain,
            netbios_host=netbios_host,
            controller_site=controller_site,
            client_site=client_site,
            next_closest_site=next_closest_site,
            is_paused=opcode == _PAUSED,
        )


def ping_request(domain: str, message_id: int) -> bytes:
    """Return the datagram that asks a domain controller about itself (MS-ADTS 6.3.3.1).

    `domain` is the DNS name that it shall serve, `message_id` a number from 1 to 2**31 - 1 that
    comes back in the answer.

    Raises:
        ValueError: `message_id` is outside that range.
    """
    if message_id not in _MESSAGE_IDS:
        raise ValueError("an LDAP message id is from 1 to 2**31 - 1")
    version = _NT_VERSION.pack(_V5 | _V5EX | _WITH_CLOSEST_SITE)
    search = (
        _element(_OCTETS, b""),
        _element(_ENUMERATED, b"\0"),
        _element(_ENUMERATED, b"\0"),
        _element(_INTEGER, b"\0"),
        _element(_INTEGER, b"\0"),
        _element(_BOOLEAN, b"\0"),
        _element(_AND, _equals(b"DnsDomain", domain.encode()), _equals(b"NtVer", version)),
        _element(_SEQUENCE, _element(_OCTETS, b"NetLogon")),
    )
    # One byte more than the bits need keeps the number positive.
    number = message_id.to_bytes(message_id.bit_length() // 8 + 1, "big")
    return _element(_SEQUENCE, _element(_INTEGER, number), _element(_SEARCH_REQUEST, *search))


def _equals(attribute: bytes, value: bytes) -> bytes:
    return _element(_EQUALITY, _element(_OCTETS, attribute), _element(_OCTETS, value))


def _element(tag: int, *contents: bytes) -> bytes:
    content = b"".join(contents)
    size = len(content)
    if size < _LONG_FORM:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, _LONG_FORM | len(length))) + length + content


def _netlogon_value(datagram: bytes, message_id: int | None) -> bytes:
    messages = _Elements(datagram)
    message = _message(messages, message_id)
    value = b""
    if message.is_next(_SEARCH_ENTRY):
        value = _only_value(message.last(_SEARCH_ENTRY))
    # Controllers put the entry and the result into one datagram.
    if not value or not messages.is_at_end:
        message = _message(messages, message_id) if message.is_at_end else message
        if message.last(_SEARCH_DONE).next(_ENUMERATED) != b"\0":
            raise _malformed("a search that failed", "success")
    messages.finish()
    if not value:
        raise EmptyAnswerError.of(
            "netlogon-answer-empty",
            "the answer says nothing",
            where="NetLogon",
            expected="a domain controller that serves the domain",
        )
    return value


def _message(messages: _Elements, message_id: int | None) -> _Elements:
    message = _Elements(messages.next(_SEQUENCE))
    number = message.next(_INTEGER)
    if message_id is not None and int.from_bytes(number, "big", signed=True) != message_id:
        raise _malformed("an answer to something else", "the request's message id")
    return message


def _only_value(entry: _Elements) -> bytes:
    entry.next(_OCTETS)
    attributes = entry.last(_SEQUENCE)
    if attributes.is_at_end:
        return b""
    attribute = attributes.last(_SEQUENCE)
    if attribute.next(_OCTETS).lower() != b"netlogon":
        raise _malformed("another attribute", "NetLogon")
    values = attribute.last(_SET)
    if values.is_at_end:
        return b""
    value = values.next(_OCTETS)
    values.finish()
    return value


class _Elements:
    """BER elements one after the other, each with a definite length (RFC 4511 5.1)."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_at_end(self) -> bool:
        return self._at == len(self._data)

    def next(self, tag: int) -> bytes:
        """Return the content of the next element, which must have this tag."""
        if self._take(1)[0] != tag:
            raise _malformed("an LDAP element of another kind", f"tag {tag:#04x}")
        size = self._take(1)[0]
        if size >= _LONG_FORM:
            count = size - _LONG_FORM
            if not 0 < count <= _MAX_LENGTH_BYTES:
                raise _malformed("an LDAP element without a usable length", "a definite one")
            size = int.from_bytes(self._take(count), "big")
        return self._take(size)

    def last(self, tag: int) -> _Elements:
        """Return the elements in the next one, after which there must be nothing."""
        content = self.next(tag)
        self.finish()
        return _Elements(content)

    def is_next(self, tag: int) -> bool:
        return self._data[self._at : self._at + 1] == bytes((tag,))

    def finish(self) -> None:
        if not self.is_at_end:
            raise _malformed("more than one LDAP element", "nothing after it")

    def _take(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise _malformed("an LDAP element that ends early", "all of its bytes")
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken


class _Names:
    """The names of an answer in DNS form, compressed within it (MS-ADTS 6.3.7, RFC 1035 4.1.4)."""

    def __init__(self, value: bytes, end: int) -> None:
        self._value = value
        self._at = _HEADER.size
        self._end = end

    def next(self) -> str:
        labels: list[bytes] = []
        size = 0
        at = first = self._at
        after: int | None = None
        while length := self._byte(at):
            if length >= _POINTER:
                target = (length - _POINTER) << 8 | self._byte(at + 1)
                after = after or at + 2
                # Only ever further back, so that no pointers can go in circles.
                if not _HEADER.size <= target < first:
                    raise _malformed("a name that points nowhere", "an earlier name")
                at = first = target
                continue
            label = self._value[at + 1 : at + 1 + length]
            at += 1 + length
            size += 1 + length
            if length >> 6 or at >= self._end or size > _MAX_NAME_BYTES:
                raise _malformed("a name that does not end", "labels of at most 63 bytes")
            labels.append(label)
        self._at = after or at + 1
        return _text(b".".join(labels))

    def skip_counted(self) -> None:
        self._at += 1 + self._byte(self._at)

    @property
    def is_at_end(self) -> bool:
        return self._at == self._end

    def _byte(self, at: int) -> int:
        if at >= self._end:
            raise _malformed("a name that ends early", "all of its bytes")
        return self._value[at]


def _text(name: bytes) -> str:
    try:
        text = name.decode()
    except UnicodeDecodeError:
        raise _malformed("a name that is not UTF-8", "UTF-8") from None
    if not text.isprintable():
        raise _malformed("a name with control characters", "printable ones")
    return text


def _malformed(found: str, expected: str) -> CredspecError:
    return CredspecError.of("netlogon-answer-malformed", found, where="NetLogon", expected=expected)
