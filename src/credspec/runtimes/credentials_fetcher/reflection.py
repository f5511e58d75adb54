"""gRPC server reflection: tools such as ``grpc_cli`` and ``grpcurl`` ask what the service is.

Both versions of the protocol, grpc.reflection.v1alpha and v1, have the same messages:
https://github.com/grpc/grpc/blob/master/doc/server-reflection.md. All that is answered is fixed and
public; the few messages are read and written here, so that nothing more has to be installed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from credspec.runtimes.credentials_fetcher import credentialsfetcher_pb2 as wire
from credspec.runtimes.credentials_fetcher.connections import caller_of
from credspec.runtimes.credentials_fetcher.message_fields import (
    has_few_fields,
    text_fields,
    varint,
)

if TYPE_CHECKING:
    import grpc

NAMES: Final = ("grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection")
"""The services that answer, each with the one method ServerReflectionInfo."""

_ROOT: Final = 0
_SECONDS: Final = 60.0
_MOST_BYTES: Final = 4096
_NOT_FOUND, _INVALID_ARGUMENT = 5, 3  # of google.rpc.Code
# ServerReflectionRequest
_HOST, _BY_NAME, _BY_SYMBOL, _BY_EXTENSION, _EXTENSIONS_OF, _LIST = 1, 3, 4, 5, 6, 7
_FIELDS: Final = (_HOST, _BY_NAME, _BY_SYMBOL, _BY_EXTENSION, _EXTENSIONS_OF, _LIST)
# ServerReflectionResponse
_VALID_HOST, _ORIGINAL, _FILES, _EXTENSIONS, _SERVICES, _ERROR = 1, 2, 4, 5, 6, 7


def handlers(served: Callable[[str, bool], None]) -> list[grpc.GenericRpcHandler]:
    """Return the services as gRPC takes them; `served` is called as by `CallHandlers`."""
    import grpc

    async def answer(_: Any, context: Any) -> None:
        peer = context.peer()
        served(peer, False)
        caller = caller_of(peer)
        if caller is None or caller.uid != _ROOT:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "reflection is for root only")
        with suppress(TimeoutError):
            async with asyncio.timeout(_SECONDS):
                while (request := await context.read()) is not grpc.aio.EOF:
                    await context.write(answer_to(request))

    method: dict[str, Any] = {"ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(answer)}
    return [grpc.method_handlers_generic_handler(name, method) for name in NAMES]


def answer_to(request: bytes) -> bytes:
    """Return the ServerReflectionResponse to a ServerReflectionRequest."""
    if len(request) > _MOST_BYTES or not has_few_fields(request):
        return _error(_INVALID_ARGUMENT, "not a request for reflection")
    fields = {n: text for n, text in text_fields(request) if _is_well_formed(n, text)}
    # What is malformed in a request would make the answer malformed.
    original = b"".join(_field(each, fields[each]) for each in _FIELDS if each in fields)
    head = _field(_VALID_HOST, fields.get(_HOST, b"")) + _field(_ORIGINAL, original)
    name = wire.DESCRIPTOR.name.encode()
    if _LIST in fields:
        services = [each.full_name for each in wire.DESCRIPTOR.services_by_name.values()]
        listed = b"".join(_field(1, _field(1, service.encode())) for service in services)
        return head + _field(_SERVICES, listed)
    if fields.get(_BY_NAME) == name or fields.get(_BY_SYMBOL) in _symbols():
        return head + _field(_FILES, _field(1, wire.DESCRIPTOR.serialized_pb))
    message = fields.get(_EXTENSIONS_OF)
    if message in _messages():
        return head + _field(_EXTENSIONS, _field(1, message))
    if fields.keys() & {_BY_NAME, _BY_SYMBOL, _BY_EXTENSION, _EXTENSIONS_OF}:
        return head + _error(_NOT_FOUND, "not part of this service")
    return head + _error(_INVALID_ARGUMENT, "not a request for reflection")


@cache
def _messages() -> frozenset[bytes]:
    found = wire.DESCRIPTOR.message_types_by_name.values()
    return frozenset(message.full_name.encode() for message in found)


@cache
def _symbols() -> frozenset[bytes]:
    def names() -> Iterator[str]:
        for service in wire.DESCRIPTOR.services_by_name.values():
            yield service.full_name
            yield from (method.full_name for method in service.methods)
        for message in wire.DESCRIPTOR.message_types_by_name.values():
            yield message.full_name
            yield from (field.full_name for field in message.fields)

    return frozenset(name.encode() for name in names())


def _is_well_formed(number: int, content: bytes) -> bool:
    if number == _BY_EXTENSION:
        if not has_few_fields(content):
            return False
        name = dict(text_fields(content)).get(1, b"")
        digits = content.removeprefix(_field(1, name))
        # Its number: a varint of at most 32 bits.
        is_number = digits[:1] == b"\x10" and digits == digits[:1] + _varint_at(digits[1:6])
        return _is_utf_8(name) and (is_number or not digits)
    return _is_utf_8(content)


def _varint_at(data: bytes) -> bytes:
    """Return the varint that data begins with, nothing if there is none."""
    for index, byte in enumerate(data):
        if byte < 0x80:  # noqa: PLR2004 - the last byte
            return data[: index + 1]
    return b""


def _is_utf_8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _error(code: int, text: str) -> bytes:
    return _field(_ERROR, varint(1 << 3) + varint(code) + _field(2, text.encode()))


def _field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data
