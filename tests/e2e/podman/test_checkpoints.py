"""A checkpoint of a container with tickets, by the CRIU of a newer Debian.

That of Debian 12 runs on no newer kernel, and 13 has none: part of `make test-runtimes` only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.engines.folder_engine import FolderPodmanEngine, ReleaseFolder

IMAGE = "kerberos-client"
SPEC = ("--annotation=credspec.dev/spec=file://WebApp01.json", "--tmpfs=/run/credspec")


@pytest.fixture(scope="module")
def engine(host: Any, newer_release: ReleaseFolder) -> Iterator[FolderPodmanEngine]:
    running = FolderPodmanEngine(host.config.run_directory, newer_release)
    try:
        imported = running.podman("import", "-", IMAGE, data=host.image)
        assert imported.returncode == 0, imported.stderr
        yield running
    finally:
        running.close()


WAYS = {"hooks": "--runtime=runc", "runtime": "--runtime=credspec", "neither": "--runtime=runc"}


@pytest.mark.parametrize("way", WAYS)
def test_only_a_container_without_tickets_can_be_checkpointed(
    host: Any, engine: FolderPodmanEngine, way: str
) -> None:
    def podman(*arguments: str) -> Any:
        return engine.podman(WAYS[way], *arguments, hooks=way == "hooks")

    archive = engine.directory / "checkpoint.tar.gz"
    started = podman("run", "-d", "--name=c1", "--network=none", *SPEC, IMAGE, "sleep", "600")
    assert started.returncode == 0, started.stderr
    try:
        assert len(host.leases()) == (way != "neither")
        made = podman("container", "checkpoint", "--leave-running", "--export", str(archive), "c1")
        if way == "neither":
            assert made.returncode == 0, made.stderr
            assert archive.exists()
            return
        assert made.returncode != 0
        reason = "[checkpoint-refused]" if way == "runtime" else "/run/credspec/.no-checkpoint"
        assert reason in made.stderr, made.stderr
        assert not archive.exists()
        # Nothing of it is left to be restored from, and the container goes on.
        assert not list(Path(engine.directory).rglob("pages-*.img"))
        shown = podman("exec", "-e", "KRB5CCNAME=/run/credspec/krb5cc", "c1", "klist")
        assert "Default principal: WebApp01$@EXAMPLE.TEST" in shown.stdout, shown.stderr
    finally:
        podman("rm", "--force", "--time", "0", "c1")
        archive.unlink(missing_ok=True)
    end = time.monotonic() + 60
    while (host.leases() or host.mounts()) and time.monotonic() < end:
        time.sleep(0.1)
    assert (host.leases(), host.mounts()) == ([], [])
