"""The generated modules are those of the .proto files."""

from __future__ import annotations

from pathlib import Path

import pytest
from grpc_tools import protoc

from credspec.kubernetes import csi

PACKAGE = Path(csi.__file__).parent
SOURCE = PACKAGE.parents[2]


@pytest.mark.parametrize("interface", ["csi", "registration"])
def test_generating_again_gives_the_same(tmp_path: Path, interface: str) -> None:
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={SOURCE}",
            f"--python_out={tmp_path}",
            f"--pyi_out={tmp_path}",
            str(PACKAGE / f"{interface}.proto"),
        ]
    )
    assert status == 0
    for suffix in ("_pb2.py", "_pb2.pyi"):
        made = tmp_path / PACKAGE.relative_to(SOURCE) / f"{interface}{suffix}"
        found = PACKAGE / f"{interface}{suffix}"
        assert made.read_text() == found.read_text(), "run `make interface`"
