"""Two users, one who may call and one who may not, abuse credentials-fetcher's interface.

Meanwhile root's calls are answered, and so is the agent's own API. CREDSPEC_ABUSE_SECONDS says for
how long, CREDSPEC_ABUSE_SEED repeats what was chosen by chance.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from credspec.agent.leases.limits import CHANGES_A_SECOND, DEFAULT_LEASES
from credspec.lab.domain import Lab
from support.abuse.abusers import SEED, Abuse, Abusers, seconds_of
from support.agent.agent_process import as_user
from support.credentials_fetcher.fetcher_agent import FetcherAgent

LISTED, UNLISTED = "nobody", "games"
SECONDS = seconds_of(1 / 6)
HOLD = "credspec_event_loop_longest_processor_seconds"
# As in test_abuse.py: what a virtual machine's host takes away counts, too.
MOST_HOLD_SECONDS = 0.3
# docs/reliability.md: what one user can have written, at once and for long.
LOG_BYTES_A_CHANGE = 1024
LOG_BYTES_A_MINUTE = 256 * 1024


@pytest.fixture
def agent(lab: Lab) -> Iterator[FetcherAgent]:
    # Not below pytest's own directory, which is closed to other users.
    directory = Path(tempfile.mkdtemp(prefix="credspec-cf-", dir="/var/tmp"))
    directory.chmod(0o755)
    running = FetcherAgent(lab, directory, extra=f'users = ["{LISTED}"]\n')
    try:
        running.is_forked = False
        running.start()
        yield running
    finally:
        running.close()
        shutil.rmtree(directory)


def metric(agent: FetcherAgent, name: str) -> float:
    command = ["curl", "-sS", "--unix-socket", agent.client._socket, "http://x/metrics"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(next(line for line in text.splitlines() if line.startswith(name)).split()[1])


def descriptors(agent: FetcherAgent) -> int:
    assert agent.process is not None
    return len(list(Path(f"/proc/{agent.process.pid}/fd").iterdir()))


@pytest.mark.timeout(SECONDS + 300)
def test_users_who_abuse_the_interface_stop_nobody_but_themselves(
    agent: FetcherAgent, capsys: pytest.CaptureFixture[str]
) -> None:
    assert agent.process is not None
    process = agent.process
    roots = agent.peer.call("AddKerberosLease", credspec_contents=[agent.spec]).lease_id
    before = descriptors(agent)
    abuses = [
        Abuse(user, "support.abuse.fetcher:FetcherAbuser", str(agent.socket), Path("/nonexistent"))
        for user in (LISTED, UNLISTED)
    ]
    abusers = Abusers(abuses, as_user, agent.directory / "abusers.log")
    latencies = []
    begin = time.monotonic()
    with abusers.running():
        while time.monotonic() < begin + SECONDS:
            asked = time.monotonic()
            assert agent.peer.call("HealthCheck").status == "OK"
            assert agent.client.get("/healthz") == {"status": "ok"}
            latencies.append(time.monotonic() - asked)
            made = agent.peer.call("AddKerberosLease", credspec_contents=[agent.spec]).lease_id
            agent.peer.call("DeleteKerberosLease", lease_id=made)
            time.sleep(0.1)
    seconds = time.monotonic() - begin
    hold = metric(agent, HOLD)
    with capsys.disabled():
        print(  # noqa: T201 - what it takes to repeat it, and what was found
            f"\nseed {SEED}, {seconds:.0f} s, {abusers.killed} abusers killed; root asked "
            f"{len(latencies)} times, worst {max(latencies) * 1000:.0f} ms; event loop held "
            f"{hold * 1000:.0f} ms of processor; {len(list(agent.tree.iterdir()))} leases, log "
            f"{agent.log.stat().st_size >> 10} KiB, audit {agent.audit_log.stat().st_size >> 10} "
            "KiB",
            end=" ",
        )
    assert agent.process is process
    assert process.poll() is None
    assert hold < MOST_HOLD_SECONDS
    assert roots in {path.name for path in agent.tree.iterdir()}
    assert len(agent.lease_containers()) <= DEFAULT_LEASES + 1

    changes = DEFAULT_LEASES + CHANGES_A_SECOND * seconds + 2 * len(latencies)
    bound = changes * LOG_BYTES_A_CHANGE + (1 + seconds / 60) * LOG_BYTES_A_MINUTE
    assert agent.log.stat().st_size < bound
    assert agent.audit_log.stat().st_size < bound
    assert "Traceback" not in agent.log.read_text()

    end = time.monotonic() + 60
    while descriptors(agent) > before + 4:
        assert time.monotonic() < end, "descriptors are left over"
        time.sleep(0.5)
    for lease in [path.name for path in agent.tree.iterdir()]:
        agent.peer.call("DeleteKerberosLease", lease_id=lease)
    assert agent.nothing_is_left()
