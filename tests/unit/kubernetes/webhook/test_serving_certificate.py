"""Certificate and key: read, shared with other replicas, loaded, and looked at again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from credspec.errors import CredspecError
from credspec.kubernetes.api.client import ApiConflictError
from credspec.kubernetes.webhook import serving_certificate
from credspec.kubernetes.webhook.certificates import Certificates, renewed
from credspec.kubernetes.webhook.serving_certificate import (
    CertificateFiles,
    CertificateSecret,
    ServedCertificate,
    load_into,
    server_context,
)
from support.webhook.certificates import SimulatedConfigurations

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


def open_files() -> Iterator[str]:
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the directory itself
            yield str(each.readlink())


def test_no_copy_of_a_key_is_left_open() -> None:
    made = renewed(None, ["a"], datetime.now(UTC))
    for key in (made.key, b"no key"):
        with suppress(CredspecError):
            load_into(server_context(), made.certificate, key)
    assert not [path for path in open_files() if "memfd:certificate" in path]


async def test_simulated_a_secret_that_others_change_each_time_is_an_error() -> None:
    api = SimulatedConfigurations()
    writes = 0

    async def put(path: str, body: dict[str, Any]) -> dict[str, Any]:
        nonlocal writes
        writes += 1
        raise ApiConflictError.of("kubernetes-api-conflict", "409: modified")

    api.put = put  # type: ignore[method-assign]
    source = CertificateSecret(
        api=api, namespace="credspec", secret="s", names=["a"], configuration="c"
    )
    with pytest.raises(CredspecError, match="kubernetes-secret-contended"):
        await source.current()
    assert writes > 1
    assert api.writes == [], "no authority is published that nobody has"


class Ended(BaseException):
    pass


async def test_after_a_failure_it_is_looked_at_sooner(tmp_path: Path) -> None:
    files = CertificateFiles(certificate=tmp_path / NAMES[0], key=tmp_path / NAMES[1])
    made = renewed(None, ["a"], datetime.now(UTC))
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 20:
            files.certificate.write_bytes(made.certificate)
            files.key.write_bytes(made.key)
        if len(pauses) == 40:
            raise Ended

    served = ServedCertificate(files, lambda _: None, sleep=pause)
    with pytest.raises(Ended):
        await served.keep_updated()
    assert max(pauses[:20]) < min(pauses[20:])
    assert len({*pauses}) > 30, "replicas do not all look at the same time"
