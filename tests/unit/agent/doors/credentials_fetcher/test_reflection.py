"""Server reflection, read by messages made here from its published protocol."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from credspec.agent.audit import Caller
from credspec.agent.doors.credentials_fetcher import reflection
from credspec.agent.doors.credentials_fetcher.connections import CallerConnections
from credspec.agent.doors.credentials_fetcher.message_fields import text_fields
from credspec.sockets.listener import listen
from support.credentials_fetcher import peer_client

SERVICE = "credentialsfetcher.CredentialsFetcherService"
# Fields of grpc/reflection/v1/reflection.proto: number, type, whether repeated.
TEXT, BYTES, NUMBER = 9, 12, 5
MESSAGES: dict[str, dict[str, tuple[int, int | str, bool]]] = {
    "ServerReflectionRequest": {
        "host": (1, TEXT, False),
        "file_by_filename": (3, TEXT, False),
        "file_containing_symbol": (4, TEXT, False),
        "file_containing_extension": (5, "ExtensionRequest", False),
        "all_extension_numbers_of_type": (6, TEXT, False),
        "list_services": (7, TEXT, False),
    },
    "ExtensionRequest": {
        "containing_type": (1, TEXT, False),
        "extension_number": (2, NUMBER, False),
    },
    "ServerReflectionResponse": {
        "valid_host": (1, TEXT, False),
        "original_request": (2, "ServerReflectionRequest", False),
        "file_descriptor_response": (4, "FileDescriptorResponse", False),
        "all_extension_numbers_response": (5, "ExtensionNumberResponse", False),
        "list_services_response": (6, "ListServiceResponse", False),
        "error_response": (7, "ErrorResponse", False),
    },
    "FileDescriptorResponse": {"file_descriptor_proto": (1, BYTES, True)},
    "ExtensionNumberResponse": {
        "base_type_name": (1, TEXT, False),
        "extension_number": (2, NUMBER, True),
    },
    "ListServiceResponse": {"service": (1, "ServiceResponse", True)},
    "ServiceResponse": {"name": (1, TEXT, False)},
    "ErrorResponse": {"error_code": (1, NUMBER, False), "error_message": (2, TEXT, False)},
}


def message_types() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="r.proto", package="r", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, repeated) in fields.items():
            message.field.add(
                name=field,
                number=number,
                label=3 if repeated else 1,
                type=kind if isinstance(kind, int) else 11,
                type_name=None if isinstance(kind, int) else f".r.{kind}",
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    find = pool.FindMessageTypeByName
    return {name: message_factory.GetMessageClass(find(f"r.{name}")) for name in MESSAGES}


TYPES = message_types()


def asked(**fields: Any) -> Any:
    request = TYPES["ServerReflectionRequest"](host="h", **fields)
    answer = TYPES["ServerReflectionResponse"].FromString(
        reflection.answer_to(request.SerializeToString())
    )
    assert answer.valid_host == "h"
    assert answer.original_request == request
    return answer


def test_the_service_is_listed() -> None:
    listed = asked(list_services="*").list_services_response.service
    assert [each.name for each in listed] == [SERVICE]


@pytest.mark.parametrize(
    "symbol",
    [
        SERVICE,
        *(f"{SERVICE}.{call}" for call in peer_client.CALLS),
        *(f"credentialsfetcher.{message}" for message in peer_client.MESSAGES),
        "credentialsfetcher.DeleteKerberosLeaseRequest.lease_id",
    ],
)
def test_every_symbol_is_described(symbol: str) -> None:
    [data] = asked(file_containing_symbol=symbol).file_descriptor_response.file_descriptor_proto
    file = descriptor_pb2.FileDescriptorProto.FromString(data)
    assert not file.dependency
    assert [service.name for service in file.service] == [peer_client.SERVICE]
    assert {message.name for message in file.message_type} == peer_client.MESSAGES.keys()
    by_name = asked(file_by_filename=file.name).file_descriptor_response
    assert list(by_name.file_descriptor_proto) == [data]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"file_containing_symbol": "google.protobuf.FileDescriptorProto"}, 5),
        ({"file_containing_symbol": f"{SERVICE}."}, 5),
        ({"file_by_filename": "/etc/passwd"}, 5),
        ({"file_containing_extension": {"containing_type": "x", "extension_number": 1}}, 5),
        ({"all_extension_numbers_of_type": "x"}, 5),
        ({}, 3),
    ],
)
def test_what_is_not_there(fields: dict[str, Any], code: int) -> None:
    assert asked(**fields).error_response.error_code == code


def test_extensions_of_a_message() -> None:
    name = "credentialsfetcher.HealthCheckRequest"
    found = asked(all_extension_numbers_of_type=name).all_extension_numbers_response
    assert (found.base_type_name, list(found.extension_number)) == (name, [])


@given(
    st.binary(max_size=200)
    | st.lists(st.tuples(st.integers(1, 7), st.binary(max_size=20)), max_size=3).map(
        lambda fields: b"".join(reflection._field(*each) for each in fields)
    )
)
def test_any_request_has_an_answer(data: bytes) -> None:
    TYPES["ServerReflectionResponse"].FromString(reflection.answer_to(data))


@given(st.lists(st.tuples(st.integers(1, 1000), st.binary(max_size=300)), max_size=5))
def test_fields_are_read_as_they_were_written(fields: list[tuple[int, bytes]]) -> None:
    data = b"".join(reflection._field(number, content) for number, content in fields)
    assert list(text_fields(data)) == fields


@asynccontextmanager
async def served(directory: Path) -> AsyncIterator[grpc.aio.Channel]:
    directory.joinpath("inner").mkdir()
    connections = CallerConnections(directory / "inner/s")
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(tuple(reflection.handlers(connections.served)))
    server.add_insecure_port(f"unix:{directory}/inner/s")
    await server.start()
    try:
        with listen(directory / "front", others=False) as listener:
            async with (
                connections.accepting(listener, lambda _: True),
                grpc.aio.insecure_channel(f"unix:{directory}/front") as channel,
            ):
                yield channel
    finally:
        await server.stop(0)


@pytest.mark.skipif(os.getuid() != 0, reason="it answers root only")
@pytest.mark.parametrize("name", ["grpc.reflection.v1alpha", "grpc.reflection.v1"])
async def test_both_versions_answer_through_grpc(tmp_path: Path, name: str) -> None:
    async with served(tmp_path) as channel:
        call = channel.stream_stream(f"/{name}.ServerReflection/ServerReflectionInfo")
        listing = TYPES["ServerReflectionRequest"](list_services="*").SerializeToString()
        answers = [answer async for answer in call(iter([listing, listing, b"\xff"]), timeout=30)]
        assert answers[0] == answers[1]
        assert SERVICE.encode() in answers[0]
        assert len(answers) == 3


async def test_others_than_root_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflection, "caller_of", lambda _: Caller(1000, 1))
    async with served(tmp_path) as channel:
        call = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        with pytest.raises(grpc.aio.AioRpcError, match="reflection is for root only") as caught:
            async for _ in call(iter([b""]), timeout=30):
                pass
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
