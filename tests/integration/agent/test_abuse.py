"""Two users, one whom the policy names and one whom it does not, abuse the agent all the time.

Meanwhile root's lease is renewed, and others are made and released. It runs for as long as
CREDSPEC_ABUSE_SECONDS says; CREDSPEC_ABUSE_SEED repeats what was chosen by chance.
"""

from __future__ import annotations

import os
import pwd
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import krb5
import pytest

from credspec.agent.leases.journal import MAX_RECORD_BYTES
from credspec.agent.leases.limits import CHANGES_A_SECOND, DEFAULT_LEASES
from credspec.lab.domain import Lab
from support.abuse.abusers import SEED, Abuse, Abusers, seconds_of
from support.agent.agent_process import AgentProcess, as_user, open_to_users

LISTED, UNLISTED = pwd.getpwnam("nobody"), pwd.getpwnam("games")
RUNTIME_DIRECTORY = Path("/run/user") / str(LISTED.pw_uid)
TICKET_SECONDS = 60
FIRST, OTHER = 1, 2
SECONDS = seconds_of(0.5)
# docs/reliability.md: what one user can have written, at once and for long.
LOG_BYTES_A_CHANGE = 1024
LOG_BYTES_A_MINUTE = 256 * 1024
# A turn of the loop takes some 20 ms at most. A virtual machine's host may take the processor away
# for a period of 100 ms and another, which counts as if the thread had used it.
MOST_HOLD_SECONDS = 0.3


@pytest.fixture
def users_directory() -> Iterator[Path]:
    RUNTIME_DIRECTORY.mkdir(parents=True, exist_ok=True)
    owner = f"uid={LISTED.pw_uid},gid={LISTED.pw_gid},mode=0700,size=64m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", owner, "run", RUNTIME_DIRECTORY], check=True)
    yield RUNTIME_DIRECTORY
    subprocess.run(["umount", "-l", RUNTIME_DIRECTORY], check=True)
    RUNTIME_DIRECTORY.rmdir()


@pytest.fixture
def agent(
    lab: Lab,
    tmp_path_factory: pytest.TempPathFactory,
    users_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[AgentProcess]:
    directory = tmp_path_factory.mktemp("abuse")
    open_to_users(directory)
    short = directory / "krb5.conf"
    short.write_text(f"[libdefaults]\n ticket_lifetime = {TICKET_SECONDS}s\n")
    monkeypatch.setenv("KRB5_CONFIG", f"{short}:{lab.krb5_conf}")
    extra = f'[policy]\nusers = ["{LISTED.pw_name}"]\nspec_sources = ["file", "raw"]\n'
    running = AgentProcess(lab, directory, extra=extra)
    running.is_forked = False
    running.start()
    yield running
    running.close()


@dataclass
class Root:
    """What root does meanwhile, and sees of the agent."""

    agent: AgentProcess
    latencies: list[float] = field(default_factory=list)
    made: int = 0
    tickets: set[int] = field(default_factory=set)

    def ticket_end(self, number: int) -> int:
        context = krb5.init_context()
        path = self.agent.lease_directory(number) / "krb5cc"
        cache = krb5.cc_resolve(context, f"FILE:{path}".encode())
        (end,) = [credentials.times.endtime for credentials in cache]
        return end

    def use(self) -> None:
        """Use the agent as an engine does, and a container the ticket of its lease."""
        begin = time.monotonic()
        assert self.agent.client.get("/healthz") == {"status": "ok"}
        self.latencies.append(time.monotonic() - begin)
        self.agent.mount(OTHER)
        self.agent.put(OTHER)
        assert self.ticket_end(OTHER) > time.time()
        self.agent.delete(OTHER)
        self.agent.unmount(OTHER)
        self.made += 1
        end = self.ticket_end(FIRST)
        assert end > time.time()
        self.tickets.add(end)

    def metric(self, name: str) -> float:
        text = subprocess.run(
            ["curl", "-s", "--unix-socket", self.agent.client._socket, "http://x/metrics"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        return float(next(line for line in text.splitlines() if line.startswith(name)).split()[1])

    def descriptors(self) -> int:
        assert self.agent.process is not None
        return len(list(Path(f"/proc/{self.agent.process.pid}/fd").iterdir()))


def size_of(directory: Path) -> int:
    return sum(path.lstat().st_size for path in directory.rglob("*") if path.is_file())


def until(condition: object, seconds: float, message: str) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, message
        time.sleep(0.5)


@pytest.mark.timeout(SECONDS + 600)
def test_users_who_abuse_the_agent_stop_nobody_but_themselves(
    agent: AgentProcess, users_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        print(f"\nseed {SEED}, {SECONDS:.0f} s")  # noqa: T201 - what it takes to repeat it
    root = Root(agent)
    assert agent.process is not None
    pid = agent.process.pid
    agent.mount(FIRST)
    agent.put(FIRST)
    root.use()
    descriptors = root.descriptors()
    socket = str(agent.run_directory / "agent.sock")
    nowhere = Path("/nonexistent")
    abuses = [
        Abuse(LISTED.pw_name, "support.abuse.abusers:HttpAbuser", socket, users_directory),
        Abuse(UNLISTED.pw_name, "support.abuse.abusers:HttpAbuser", socket, nowhere),
    ]
    abusers = Abusers(abuses, as_user, agent.directory / "abusers.log", SEED)
    begin = time.monotonic()
    with abusers.running():
        while time.monotonic() < begin + SECONDS:
            root.use()
            assert agent.process.poll() is None, agent.log.read_text()[-5000:]
            time.sleep(0.1)
    seconds = time.monotonic() - begin
    hold = root.metric("credspec_event_loop_longest_processor_seconds")
    latencies = sorted(root.latencies)
    shown = (
        f"{seconds:.0f} s, {abusers.killed} abusers killed, {root.made} leases of root's, "
        f"{len(root.tickets)} tickets; /healthz {statistics.median(latencies) * 1000:.1f} ms, "
        f"worst {latencies[-1] * 1000:.0f} ms; event loop held {hold * 1000:.0f} ms of processor, "
        f"log {agent.log.stat().st_size >> 10} KiB, audit {agent.audit_log.stat().st_size >> 10} "
        f"KiB, run directory {size_of(agent.run_directory) >> 10} KiB"
    )
    with capsys.disabled():
        print(shown, end=" ")  # noqa: T201 - it is to be seen
    assert (agent.process.pid, agent.process.poll()) == (pid, None)
    assert hold < MOST_HOLD_SECONDS
    if seconds > TICKET_SECONDS:
        assert len(root.tickets) > 1

    users_leases = [each for each in agent.client.get("/v1/leases")["leases"] if each["user"]]
    assert {lease["user"] for lease in users_leases} <= {LISTED.pw_uid}
    assert len(users_leases) <= DEFAULT_LEASES
    changes = DEFAULT_LEASES + CHANGES_A_SECOND * seconds
    bound = changes * LOG_BYTES_A_CHANGE + (1 + seconds / 60) * LOG_BYTES_A_MINUTE
    # Root's own lines count, too: those of a lease that is made and released.
    bound += root.made * LOG_BYTES_A_CHANGE
    assert agent.log.stat().st_size < bound
    assert agent.audit_log.stat().st_size < bound
    assert size_of(agent.run_directory) < DEFAULT_LEASES * MAX_RECORD_BYTES
    assert "Traceback" not in agent.log.read_text()

    # The user's engines are gone: so are its leases, with the next look at them.
    shutil.rmtree(users_directory / "credspec", ignore_errors=True)
    until(
        lambda: agent.lease_containers() == [f"container{FIRST}"],
        120,
        f"leases are left over: {agent.lease_containers()[:5]}",
    )
    assert [path.name for path in (agent.run_directory / "leases").iterdir()] == [f"{FIRST:032x}"]
    assert len(list((agent.run_directory / "journal").iterdir())) == 1
    until(lambda: root.descriptors() <= descriptors + 2, 60, "descriptors are left over")
    # It starts again, with what it wrote down, and knows root's lease.
    agent.end()
    agent.start()
    assert agent.lease_containers() == [f"container{FIRST}"]
    agent.delete(FIRST)
    agent.unmount(FIRST)
    assert os.listdir(agent.run_directory / "journal") == []  # noqa: PTH208 - names are compared
