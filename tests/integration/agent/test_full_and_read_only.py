"""File systems that are full, read-only or damaged, for real: clear errors, nobody else harmed."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from credspec.errors import CredspecError
from credspec.lab.domain import Lab
from support.agent.agent_process import AgentProcess


class SmallDisk:
    """A tmpfs of 128 KiB at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=128k,mode=755", "small", str(path)], check=True
        )

    def fill(self) -> None:
        with (self.path / "filler").open("wb", buffering=0) as file, suppress(OSError):
            while file.write(b"x" * 4096):
                pass

    def empty(self) -> None:
        (self.path / "filler").unlink()

    def let_write(self, *, allowed: bool) -> None:
        mode = "rw" if allowed else "ro"
        subprocess.run(["mount", "-o", f"remount,{mode}", str(self.path)], check=True)

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """What the agent's run directory is on."""
    found = SmallDisk(tmp_path / "run")
    yield found
    found.close()


@pytest.fixture
def agent(lab: Lab, disk: SmallDisk, tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent with a lease, and a mount for a second one."""
    found = AgentProcess(lab, tmp_path)
    found.start()
    found.mount(1)
    found.put(1)
    found.mount(2)
    yield found
    found.close()


def refusal(agent: AgentProcess, number: int) -> str:
    with pytest.raises(CredspecError) as caught:
        agent.put(number)
    assert not list(agent.lease_directory(number).iterdir())
    return str(caught.value)


def is_ready(agent: AgentProcess) -> bool:
    return bool(agent.client.get("/readyz") == {"status": "ready"})


def test_a_full_run_directory(agent: AgentProcess, disk: SmallDisk) -> None:
    ticket = (agent.lease_directory(1) / "krb5cc").read_bytes()
    disk.fill()
    said = refusal(agent, 2)
    assert "No space left on device" in said
    assert "free space" in said
    assert "[journal-unwritable]" in said
    assert agent.lease_containers() == ["container1"]
    assert (agent.lease_directory(1) / "krb5cc").read_bytes() == ticket
    agent.delete(1)
    assert list(agent.lease_directory(1).iterdir()) == []
    assert all(path.suffix == ".json" for path in disk.path.glob("journal/*"))
    disk.empty()
    agent.put(2)
    assert agent.lease_containers() == ["container2"]


def test_a_run_directory_that_is_full_when_the_agent_starts(
    agent: AgentProcess, disk: SmallDisk
) -> None:
    agent.end()
    disk.fill()
    with pytest.raises(AssertionError, match="krb5-conf-unwritable"):
        agent.start()
    disk.empty()
    agent.start()
    assert agent.lease_containers() == ["container1"]


def test_a_read_only_run_directory(agent: AgentProcess, disk: SmallDisk) -> None:
    disk.let_write(allowed=False)
    said = refusal(agent, 2)
    assert "Read-only file system" in said
    assert "[journal-unwritable]" in said
    assert agent.lease_containers() == ["container1"]
    with pytest.raises(CredspecError, match=r"journal .* cannot be written .*\[not-ready\]"):
        is_ready(agent)
    # A container ends: its tickets are wiped, although its record cannot be.
    agent.delete(1)
    assert list(agent.lease_directory(1).iterdir()) == []
    assert agent.lease_containers() == []
    assert "journal-unwritable" in agent.log.read_text()
    disk.let_write(allowed=True)
    assert is_ready(agent)
    agent.unmount(1)
    agent.end()
    agent.start()
    assert agent.lease_containers() == []
    assert not list(disk.path.glob("journal/*"))


@pytest.mark.parametrize("text", ["", "{", "null", '{"lease_id": 1}', "\0" * 100])
def test_a_damaged_record_costs_its_own_lease_alone(agent: AgentProcess, text: str) -> None:
    agent.put(2)
    agent.end()
    journal = agent.run_directory / "journal"
    (journal / f"{1:032x}.json").write_text(text)
    agent.start()
    assert agent.lease_containers() == ["container2"]
    assert list(agent.lease_directory(1).iterdir()) == []
    assert (agent.lease_directory(2) / "krb5cc").stat().st_size > 0
    assert "journal-record-unreadable" in agent.log.read_text()
    assert [path.stem for path in journal.iterdir()] == [f"{2:032x}"]


def test_an_audit_log_on_a_full_disk(lab: Lab, tmp_path: Path) -> None:
    """What cannot be written down is not granted; what was granted stays."""
    full = SmallDisk(tmp_path / "log")
    agent = AgentProcess(lab, tmp_path)
    agent.config.write_text(
        agent.config.read_text().replace(str(agent.audit_log), str(full.path / "audit.jsonl"))
    )
    try:
        agent.start()
        agent.mount(1)
        agent.mount(2)
        agent.put(1)
        # What is left of the last page could take a line more.
        log = full.path / "audit.jsonl"
        with log.open("a") as file:
            file.write("\n" * (4096 - log.stat().st_size % 4096))
        full.fill()
        assert "[audit-unwritable]" in refusal(agent, 2)
        assert agent.lease_containers() == ["container1"]
        full.empty()
        agent.put(2)
        lines = [json.loads(line) for line in log.read_text().split("\n") if line]
        # Of the refused one there may be an end, written as soon as there was space.
        decisions = [line["decision"] for line in lines if line["decision"] != "released"]
        assert decisions == ["granted", "granted"]
    finally:
        agent.close()
        full.close()


def test_what_a_container_piles_up_in_its_directory_does_not_hinder_its_end(
    agent: AgentProcess,
) -> None:
    """Directories in directories, deeper than any recursion goes."""
    directory = agent.lease_directory(1)
    before = os.open(".", os.O_RDONLY)
    os.chdir(directory)
    try:
        for _ in range(3000):
            Path("d").mkdir()
            os.chdir("d")
    finally:
        os.fchdir(before)
        os.close(before)
    agent.delete(1)
    assert [path.name for path in directory.iterdir()] == ["d"]
    assert agent.lease_containers() == []
    agent.put(2)
