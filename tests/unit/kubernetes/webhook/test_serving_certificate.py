"""Certificate and key in files, as cert-manager and the kubelet replace them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from credspec.kubernetes.webhook import serving_certificate
from credspec.kubernetes.webhook.certificates import Certificates, renewed
from credspec.kubernetes.webhook.serving_certificate import CertificateFiles

NAMES = ("tls.crt", "tls.key")


class Mounted:
    """A Secret as the kubelet mounts it: files are links through a link that is replaced."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.count = 0
        for name in NAMES:
            (directory / name).symlink_to(f"..data/{name}")

    def replace(self, made: Certificates) -> None:
        self.count += 1
        new = self.directory / f"..{self.count}"
        new.mkdir()
        for name, content in zip(NAMES, (made.certificate, made.key), strict=True):
            (new / name).write_bytes(content)
        link = self.directory / "..data_tmp"
        link.symlink_to(new.name)
        link.rename(self.directory / "..data")
        shutil.rmtree(self.directory / f"..{self.count - 1}", ignore_errors=True)


@pytest.mark.parametrize("read", NAMES)
async def test_certificate_and_key_are_of_one_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    made = [renewed(None, ["a"], datetime.now(UTC)) for _ in range(2)]
    mounted = Mounted(tmp_path)
    mounted.replace(made[0])
    original: Callable[[Path], bytes] = serving_certificate._content

    def content(path: Path) -> bytes:
        found = original(path)
        if path.name == read and mounted.count == 1:
            mounted.replace(made[1])
        return found

    monkeypatch.setattr(serving_certificate, "_content", content)
    files = CertificateFiles(certificate=tmp_path / NAMES[0], key=tmp_path / NAMES[1])
    assert await files.current() in [(each.certificate, each.key) for each in made]
    assert mounted.count == 2
