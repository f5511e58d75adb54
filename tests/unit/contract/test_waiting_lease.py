"""A lease that waits: the agent is simulated by a socket, the lease's tmpfs by a directory."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from credspec.contract import agent_client
from credspec.contract import lease as lease_module
from credspec.contract.errors import NotYetError, ShimError
from credspec.contract.lease import Lease
from credspec.contract.start_wait import StartWait
from credspec.contract.ticket_options import TicketRequest
from credspec.errors import CredspecError
from support.engines.podman_storage import CONTAINER, write_storage
from support.machine.open_files import opened_below

GRANTED = b'HTTP/1.0 200 OK\r\n\r\n{"environment": {}}'
REQUEST = TicketRequest("file://a.json", 0, 0, 0o600, keytab=False)


def problem(status: int, code: str, header: str = "") -> bytes:
    error = CredspecError.of(code, "what", where="where")
    document = json.dumps(error.to_json())
    return f"HTTP/1.0 {status} Words\r\n{header}X: y\r\n\r\n{document}".encode()


LATE = problem(503, "dns-unreachable", "Retry-After: 1\r\n")


class Agent:
    """Answers each PUT with the next of its answers, the last one again and again."""

    def __init__(self, path: Path, *answers: bytes) -> None:
        self.path, self.answers = path, list(answers)
        self.requests: list[bytes] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        try:
            while True:
                with self._listener.accept()[0] as taken:
                    request = taken.recv(65536)
                    if not request.startswith(b"PUT"):
                        taken.sendall(b"HTTP/1.0 204 No Content\r\n\r\n")
                        continue
                    self.requests.append(request)
                    taken.sendall(self.answers[0])
                    self.answers[: len(self.answers) - 1] = self.answers[1:]
        except OSError:
            return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.path.unlink(missing_ok=True)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "leases").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lease_module, "_mount_tmpfs", lambda path, _: Path(path).mkdir())
        patch.setattr(lease_module, "_unmount", lambda path: shutil.rmtree(path, True))
        yield tmp_path


class Start:
    """A start that waits for a minute of its own; at each pause something may happen."""

    def __init__(self, run: Path, *, seconds: float = 60, then: dict[int, object] | None = None):
        self.said: list[str] = []
        self.then = then or {}
        self.pauses = 0
        self.now = 0.0
        self.lease = Lease("0" * 32, str(run / "agent.sock"), str(run))
        self.wait = StartWait(seconds, self.said.append, clock=lambda: self.now, sleep=self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses += 1
        act = self.then.get(self.pauses)
        if callable(act):
            act()

    def take(self) -> object:
        return self.lease.take(REQUEST, "c1", "/run/runc/c1", self.wait, name_fallback=True)


def test_the_socket_comes_later(run: Path) -> None:
    agents: list[Agent] = []
    start = Start(run, then={3: lambda: agents.append(Agent(run / "agent.sock", GRANTED))})
    try:
        assert start.take() == {"environment": {}}
    finally:
        agents[0].close()
    assert start.pauses == 3
    assert "[agent-unreachable]" in start.said[0]
    assert len(start.said) == 1


@pytest.mark.root  # it is the agent's that is missing, not a user's own
def test_the_leases_directory_comes_later(run: Path) -> None:
    """After a boot there is no run directory before the agent makes it."""
    (run / "leases").rmdir()

    agent = Agent(run / "agent.sock", GRANTED)
    try:
        start = Start(run, then={2: (run / "leases").mkdir})

        def mount(path: str, _: TicketRequest) -> None:
            # What the real one says where the kernel finds no such directory.
            try:
                Path(path).mkdir()
            except FileNotFoundError:
                raise NotYetError("agent-unreachable", "x: no such directory") from None

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lease_module, "_mount_tmpfs", mount)
            assert start.take() == {"environment": {}}
    finally:
        agent.close()
    assert start.pauses == 2


def test_a_directory_that_the_agent_has_not_made_yet_is_no_refusal(tmp_path: Path) -> None:
    with pytest.raises(NotYetError, match="agent-unreachable"):
        lease_module._mount_tmpfs(str(tmp_path / "leases" / "x"), REQUEST)


def test_a_socket_that_nobody_listens_at(run: Path) -> None:
    """As an agent leaves that was killed."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(run / "agent.sock"))
    agents: list[Agent] = []

    def come() -> None:
        (run / "agent.sock").unlink()
        agents.append(Agent(run / "agent.sock", GRANTED))

    try:
        assert Start(run, then={1: come}).take() == {"environment": {}}
    finally:
        agents[0].close()


@pytest.mark.parametrize(
    "first",
    [b"", b"HTTP/1.0 200 OK\r\n\r\n{", LATE, problem(429, "leases-too-often", "retry-after:2\r\n")],
)
def test_an_agent_that_goes_or_says_when_to_ask_again(run: Path, first: bytes) -> None:
    agent = Agent(run / "agent.sock", first, first, GRANTED)
    try:
        start = Start(run)
        assert start.take() == {"environment": {}}
        assert len(agent.requests) == 3
        assert len(start.said) == 1
    finally:
        agent.close()


@pytest.mark.parametrize("answer", [GRANTED, problem(403, "policy-account")])
def test_however_it_ends_no_descriptor_stays_open(run: Path, answer: bytes) -> None:
    """Podman's hook and `credspec run` go on after it."""
    agent = Agent(run / "agent.sock", answer)
    try:
        with suppress(ShimError):
            Start(run).take()
        assert opened_below(run) == []
    finally:
        agent.close()


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (403, "policy-account"),
        (403, "password-not-permitted"),
        (422, "spec-not-json"),
        (400, "lease-id-invalid"),
        (404, "account-not-found"),
        (429, "leases-too-many"),
        (500, "internal-error"),
        (503, "domain-not-found"),
    ],
)
def test_a_refusal_is_the_end_at_once_and_after_a_wait(run: Path, status: int, code: str) -> None:
    for before in ((), (LATE, LATE)):
        agent = Agent(run / "agent.sock", *before, problem(status, code))
        try:
            start = Start(run)
            with pytest.raises(ShimError) as caught:
                start.take()
        finally:
            agent.close()
        assert str(caught.value).endswith(f" [{code}]")
        assert ("waited for" in str(caught.value)) == bool(before)
        assert len(agent.requests) == len(before) + 1
        assert list((run / "leases").iterdir()) == []


def test_a_domain_that_stays_away_is_the_same_error_with_the_time(run: Path) -> None:
    agent = Agent(run / "agent.sock", LATE)
    try:
        with pytest.raises(ShimError, match=r"where: what; waited for \d+ s \[dns-unreachable\]$"):
            Start(run, seconds=20).take()
    finally:
        agent.close()
    assert list((run / "leases").iterdir()) == []


def test_a_container_that_is_deleted_meanwhile(run: Path) -> None:
    start = Start(run)
    start.then = {2: start.lease.give_back}
    with pytest.raises(ShimError, match="start-abandoned") as caught:
        start.take()
    assert str(caught.value).count("waited for") == 1
    assert start.pauses == 2
    assert list((run / "leases").iterdir()) == []


def test_another_container_of_the_same_id_keeps_its_directory(run: Path) -> None:
    start = Start(run)
    other = run / "leases" / ("0" * 32) / "krb5cc"

    def make_again() -> None:
        start.lease.give_back()
        other.parent.mkdir()
        other.write_text("the other's")

    start.then = {1: make_again}
    with pytest.raises(ShimError, match="start-abandoned"):
        start.take()
    assert other.read_text() == "the other's"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_and_nothing_is_left(run: Path, number: int) -> None:
    before = signal.getsignal(number)
    start = Start(run, then={2: lambda: os.kill(os.getpid(), number)})
    with pytest.raises(ShimError, match=rf"ended by signal {number:d}; .*\[start-interrupted\]"):
        start.take()
    assert list((run / "leases").iterdir()) == []
    assert signal.getsignal(number) is before


def test_a_signal_while_the_agent_hangs(run: Path) -> None:
    """Its answer would be waited for, for a minute."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(run / "agent.sock"))
        listener.listen()

        def end_it() -> None:
            # Once it waits, and not before: by itself the signal would end this process.
            with listener.accept()[0] as taken:
                taken.recv(65536)
                os.kill(os.getpid(), signal.SIGTERM)
                end.wait(60)

        end = threading.Event()
        thread = threading.Thread(target=end_it, daemon=True)
        thread.start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lease_module, "_RELEASE_SECONDS", 1.0)
            with pytest.raises(ShimError, match="start-interrupted"):
                Start(run).take()
        end.set()
        thread.join()


@pytest.mark.parametrize("just_booted", [True, False])
def test_a_socket_that_is_not_open_to_users_yet_simulated(
    run: Path, monkeypatch: pytest.MonkeyPatch, just_booted: bool
) -> None:
    """As systemd has made it when it boots; later it stays closed to users who are not named."""

    class Closed:
        def __getattr__(self, name: str) -> object:
            return lambda *_: None

        def connect(self, _: object) -> None:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(agent_client, "has_just_booted", lambda: just_booted)
    monkeypatch.setattr(agent_client._socket, "socket", lambda *_: Closed())
    start = Start(run, seconds=20)
    with pytest.raises(ShimError, match=r"Permission denied.*\[agent-unreachable\]"):
        start.take()
    assert bool(start.pauses) is just_booted


SOURCE = str(Path(__file__).parents[3] / "src")
SHIM = f"""
import sys
sys.path.append({SOURCE!r})
from credspec.shim.runtime import main
sys.argv[1:] = ["--log", {{log!r}}, "create", "--bundle", {{bundle!r}}, "c1"]
main(runtimes=["/bin/true"], run_directory={{run!r}}, wait_seconds={{seconds}})
"""


def shim_command(tmp_path: Path, seconds: float) -> list[str]:
    """Return a shim without an agent, in an interpreter of its own."""
    (tmp_path / "run/leases").mkdir(parents=True)
    (tmp_path / "config.json").write_text('{"annotations": {"credspec.dev/spec": "file://a.json"}}')
    code = SHIM.format(
        log=str(tmp_path / "log"), bundle=str(tmp_path), run=str(tmp_path / "run"), seconds=seconds
    )
    return [sys.executable, "-IS", "-c", code]


@pytest.mark.root  # it mounts a tmpfs first
def test_the_runtimes_log_has_one_line_on_the_wait_and_then_the_error(tmp_path: Path) -> None:
    shown = subprocess.run(shim_command(tmp_path, 1.5), capture_output=True, text=True, check=False)
    assert shown.returncode == 1
    entries = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [entry["level"] for entry in entries] == ["warning", "error"]
    assert "waiting for up to 2 s: credspec agent: " in entries[0]["msg"]
    assert entries[1]["msg"].endswith(" s [agent-unreachable]")
    assert "; waited for " in entries[1]["msg"]
    assert len(shown.stderr.splitlines()) == 2


@pytest.mark.root  # it mounts a tmpfs first
def test_a_shim_whose_engine_has_gone_ends(tmp_path: Path) -> None:
    """What started it is killed, as containerd's shim is when its start takes too long."""
    engine = "import subprocess, sys, time; subprocess.Popen(sys.argv[1:]); time.sleep(600)"
    command = [sys.executable, "-c", engine, *shim_command(tmp_path, 300)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "waiting for up to 300 s" in process.stderr.readline()
        process.kill()
        # Its end is that of its standard error.
        assert "[start-abandoned]" in process.stderr.read()


@pytest.mark.root  # it mounts a tmpfs first
def test_podmans_hook_waits_as_the_shim_does(tmp_path: Path) -> None:
    config = write_storage(tmp_path / "storage", {})
    userdata = f"/run/containers/storage/overlay-containers/{CONTAINER}/userdata"
    config |= {
        "annotations": {"credspec.dev/spec": "file://a.json"},
        "mounts": [
            {"source": f"{userdata}/.containerenv", "destination": "/run/.containerenv"},
            {"type": "tmpfs", "destination": "/run/credspec"},
        ],
    }
    (tmp_path / "run/leases").mkdir(parents=True)
    code = (
        f"import sys; sys.path.append({SOURCE!r})\n"
        "from credspec.shim.podman_hook import main\n"
        "sys.argv = ['/hook', 'precreate']\n"
        f"main(run_directory={str(tmp_path / 'run')!r}, wait_seconds=1.5)"
    )
    shown = subprocess.run(
        [sys.executable, "-IS", "-c", code],
        input=json.dumps(config),
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.stderr.count("waiting for up to 2 s: credspec agent: ") == 1
    (refusal,) = json.loads(shown.stdout)["hooks"]["prestart"]
    assert refusal["path"].endswith(" s [agent-unreachable]")
    assert "; waited for " in refusal["path"]
