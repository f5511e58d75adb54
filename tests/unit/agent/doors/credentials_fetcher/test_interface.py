"""The generated modules are those of the .proto file, and it is the published interface."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from grpc_tools import protoc
from hypothesis import given
from hypothesis import strategies as st

from credspec.agent.doors import credentials_fetcher
from credspec.agent.doors.credentials_fetcher import credentialsfetcher_pb2 as wire
from credspec.agent.doors.credentials_fetcher.call_handlers import _read
from support.credentials_fetcher import peer_client

PACKAGE = Path(credentials_fetcher.__file__).parent
SOURCE = PACKAGE.parents[3]


@pytest.mark.parametrize("name", ["credentialsfetcher_pb2.py", "credentialsfetcher_pb2.pyi"])
def test_generating_anew_gives_the_same(tmp_path: Path, name: str) -> None:
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={SOURCE}",
            f"--python_out={tmp_path}",
            f"--pyi_out={tmp_path}",
            str(PACKAGE / "credentialsfetcher.proto"),
        ]
    )
    assert status == 0
    made = tmp_path / PACKAGE.relative_to(SOURCE) / name
    assert made.read_text() == (PACKAGE / name).read_text(), "run `make interface`"


def shape(file: descriptor_pb2.FileDescriptorProto) -> tuple[object, ...]:
    messages = {
        message.name: [(f.name, f.number, f.label, f.type, f.type_name) for f in message.field]
        for message in file.message_type
    }
    [service] = file.service
    methods = {m.name: (m.input_type, m.output_type) for m in service.method}
    return file.package, file.syntax, messages, service.name, methods


@given(
    st.lists(st.sampled_from(["arn:aws:s3:::specs/1#t/m", "arn:aws:s3:::specs/2#t/n"]), max_size=3),
    st.text("ABC123", min_size=1, max_size=20),
)
def test_the_older_request_of_a_renewal_is_told_from_the_present_one(
    arns: list[str], key: str
) -> None:
    values = {"access_key_id": key, "secret_access_key": "s", "session_token": "t"}
    kind = wire.RenewKerberosArnLeaseRequest
    present = kind(region="eu-west-1", **values)
    assert _read(kind, present.SerializeToString()) == present
    older = wire.KerberosArnLeaseRequest(credspec_arns=arns, region="eu-west-1", **values)
    assert _read(kind, older.SerializeToString()) == older


def test_it_is_the_published_interface() -> None:
    ours = descriptor_pb2.FileDescriptorProto.FromString(wire.DESCRIPTOR.serialized_pb)
    assert shape(ours) == shape(peer_client.interface())
