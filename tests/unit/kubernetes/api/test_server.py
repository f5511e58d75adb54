"""Where the API server is, as a pod is told; what its files may hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from credspec.errors import CredspecError, UsageError
from credspec.kubernetes.api.server import ApiServer, in_cluster


@pytest.mark.parametrize(
    ("host", "port", "url"),
    [
        ("10.96.0.1", "443", "https://10.96.0.1:443"),
        ("fd00::1", "6443", "https://[fd00::1]:6443"),
        ("api.example.test", "1", "https://api.example.test:1"),
    ],
)
def test_variables_of_a_pod(tmp_path: Path, host: str, port: str, url: str) -> None:
    variables = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    found = in_cluster(variables, tmp_path)
    assert found == ApiServer(url, tmp_path / "ca.crt", tmp_path / "token")


def test_a_process_outside_a_cluster() -> None:
    with pytest.raises(UsageError, match="kubernetes-not-in-cluster"):
        in_cluster({})


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("", "443"),
        ("10.96.0.1", ""),
        ("10.96.0.1", "0"),
        ("10.96.0.1", "65536"),
        ("10.96.0.1", "9" * 5000),
        ("10.96.0.1", "x"),
        ("user@10.96.0.1", "443"),
        ("10.96.0.1/path", "443"),
        ("10.96.0.1 ", "443"),
    ],
)
def test_variables_that_name_no_server(host: str, port: str) -> None:
    variables = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    with pytest.raises(UsageError, match="kubernetes-not-in-cluster"):
        in_cluster(variables)


def test_the_token_is_read_each_time(tmp_path: Path) -> None:
    server = ApiServer("https://x", tmp_path / "ca.crt", tmp_path / "token")
    with pytest.raises(CredspecError, match="kubernetes-token-file"):
        server.token()
    server.token_file.write_text("one\n")
    assert server.token() == "one"
    server.token_file.write_text("two")
    assert server.token() == "two"


@pytest.mark.parametrize("content", [b"", b"\n", b"a b", b"a\nX-Header: b", "é".encode(), b"a\0b"])
def test_what_is_no_token_is_not_sent(tmp_path: Path, content: bytes) -> None:
    server = ApiServer("https://x", tmp_path / "ca.crt", tmp_path / "token")
    server.token_file.write_bytes(content)
    with pytest.raises(CredspecError, match="kubernetes-token-file") as caught:
        server.token()
    assert "X-Header" not in str(caught.value)


def test_a_missing_authority(tmp_path: Path) -> None:
    server = ApiServer("https://x", tmp_path / "ca.crt", tmp_path / "token")
    for content in (None, "", "nothing of a certificate"):
        if content is not None:
            server.ca_file.write_text(content)
        with pytest.raises(CredspecError, match="kubernetes-ca-file"):
            server.tls_context()
