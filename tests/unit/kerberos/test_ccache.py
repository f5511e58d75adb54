from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from credspec.kerberos.ccache import ccache_bytes


def test_layout_of_version_4() -> None:
    data = ccache_bytes("http/web@A.B", b"<cred>")
    assert data == (
        b"\x05\x04\x00\x00"
        b"\x00\x00\x00\x01\x00\x00\x00\x02"
        b"\x00\x00\x00\x03A.B\x00\x00\x00\x04http\x00\x00\x00\x03web"
        b"<cred>"
    )


@pytest.mark.skipif(shutil.which("klist") is None, reason="needs klist of krb5-user")
def test_klist_reads_it(tmp_path: Path) -> None:
    (tmp_path / "cc").write_bytes(ccache_bytes("WebApp01$@EXAMPLE.TEST"))
    listed = subprocess.run(
        ["klist", str(tmp_path / "cc")], capture_output=True, text=True, check=True
    ).stdout
    assert "Default principal: WebApp01$@EXAMPLE.TEST" in listed
