"""The lease of a container as the shim holds it, with a real tmpfs.

The agent is simulated by a socket, the runtime by a script.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from credspec.contract import agent_client as agent_client_module
from credspec.contract import host_paths
from credspec.contract import lease as lease_module
from credspec.contract.errors import NotYetError, ShimError
from credspec.contract.lease import Lease, lease_request
from credspec.contract.ticket_options import TicketRequest
from credspec.shim.container_lease import report
from credspec.shim.runtime import Invocation
from support.agent.simulated_agent import GRANTED, SimulatedAgent

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts a tmpfs")
SOURCE = str(Path(__file__).parents[3] / "src")
SPEC = {"annotations": {"credspec.dev/spec": "file://a.json"}, "process": {"env": ["A=1"]}}
REQUEST = TicketRequest("file://a.json", 0, 0, 0o600, keytab=False)
WITH_KEYTAB = TicketRequest("file://a.json", 1000, 1001, 0o440, keytab=True)
UMOUNT = ctypes.CDLL(None, use_errno=True).umount2


class Host:
    """A run directory with an agent, a bundle, and a runtime that is a script."""

    def __init__(self, directory: Path) -> None:
        self.run, self.bundle, self.states = (directory / n for n in ("run", "bundle", "states"))
        for made in (self.run / "leases", self.bundle, self.states):
            made.mkdir(parents=True)
        self.runtime, self.log = directory / "runc", directory / "log"
        self.agent = SimulatedAgent(self.run / "agent.sock")
        self.write_runtime("exit 0")
        self.write_config(SPEC)

    def write_config(self, config: object) -> None:
        (self.bundle / "config.json").write_text(json.dumps(config))
        (self.bundle / "config.json").chmod(0o640)

    def write_runtime(self, script: str) -> None:
        """What the runtime does; it keeps the configuration that it finds."""
        kept = f'cp "{self.bundle}/config.json" "{self.bundle}/seen.json" 2> /dev/null'
        self.runtime.write_text(f"#!/bin/sh\n{kept}\n{script}\n")
        self.runtime.chmod(0o755)

    def line(self, *command: str) -> list[str]:
        options = ["--root", str(self.states), "--log", str(self.log)]
        with_bundle = command[0] in {"create", "run", "restore"}
        return [*options, *command, *(["--bundle", str(self.bundle)] if with_bundle else []), "c1"]

    def shim(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run the shim as an engine does."""
        return subprocess.run(
            self.shim_command(*command), capture_output=True, text=True, check=False
        )

    def shim_command(self, *command: str) -> list[str]:
        code = (
            f"import sys; sys.path.append({SOURCE!r})\n"
            "from credspec.shim.runtime import main\n"
            f"sys.argv[1:] = {self.line(*command)!r}\n"
            f"main(runtimes=[{str(self.runtime)!r}], run_directory={str(self.run)!r})"
        )
        return [sys.executable, "-IS", "-c", code]

    @property
    def lease(self) -> Path:
        """Where the container's lease is while there is one."""
        return self.run / "leases" / Invocation(self.line("create")).lease_id(str(self.runtime))

    @property
    def seen(self) -> dict[str, Any]:
        """The configuration that the runtime was given."""
        found: dict[str, Any] = json.loads((self.bundle / "seen.json").read_text())
        return found

    def last_words(self) -> str:
        return str(json.loads(self.log.read_text().splitlines()[-1])["msg"])

    def close(self) -> None:
        self.agent.close()
        for path in (self.run / "leases").iterdir():
            UMOUNT(bytes(path), 2)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.close()


@ROOT
@pytest.mark.parametrize("command", [["create"], ["run", "--detach"], ["run", "-d"]])
def test_a_container_that_came_to_be_has_its_lease_and_knows_where(
    host: Host, command: list[str]
) -> None:
    shown = host.shim(*command)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert host.lease.is_mount()
    assert host.agent.methods == ["PUT"]
    _, path, body = host.agent.asked[0]
    assert path == f"/v1/leases/{host.lease.name}"
    assert (body["spec"], body["container"]) == ("file://a.json", "c1")
    assert body["runtime_state"] == f"{host.states}/c1"
    assert (body["uid"], body["gid"], body["mode"]) == (0, 0, 0o600)
    assert (body["keytab"], body["replay_cache"]) == (False, False)
    mounts = [m for m in host.seen["mounts"] if m["destination"] == "/run/credspec"]
    assert [mount["source"] for mount in mounts] == [str(host.lease)]
    assert host.seen["process"]["env"] == ["A=1", "KRB5CCNAME=/run/credspec/krb5cc"]
    mode = (host.bundle / "config.json").stat().st_mode
    assert stat.S_IMODE(mode) == 0o640, "its environment may hold secrets"


@ROOT
@pytest.mark.parametrize("status", [1, 2, 127, 255])
@pytest.mark.parametrize("command", ["create", "run"])
def test_a_container_that_did_not_come_to_be_keeps_no_lease(
    host: Host, command: str, status: int
) -> None:
    host.write_runtime(f"exit {status}")
    assert host.shim(command).returncode == status
    assert host.agent.methods == ["PUT", "DELETE"]
    assert not host.lease.exists()


@ROOT
def test_a_container_that_ran_to_its_end_keeps_no_lease(host: Host) -> None:
    host.write_runtime(f'test -d "{host.lease}" || exit 9')
    assert host.shim("run").returncode == 0
    assert host.agent.methods == ["PUT", "DELETE"]
    assert not host.lease.exists()


@ROOT
def test_a_configuration_that_cannot_be_written_means_no_container_and_no_lease(host: Host) -> None:
    (host.bundle / "config.json.credspec").mkdir()
    host.write_runtime(f'echo started > "{host.bundle}/started"')
    shown = host.shim("create")
    assert shown.returncode == 1
    assert host.agent.methods == ["PUT", "DELETE"]
    assert not host.lease.exists()
    assert not (host.bundle / "started").exists()
    assert "Traceback" not in shown.stderr
    assert host.last_words().endswith("[internal]")


@ROOT
def test_an_answer_without_an_environment_means_no_container_and_no_lease(host: Host) -> None:
    host.agent.answer = b"HTTP/1.0 200 OK\r\n\r\n{}"
    assert host.shim("create").returncode == 1
    assert host.agent.methods == ["PUT", "DELETE"]
    assert not host.lease.exists()
    assert "[internal]" in host.last_words()


REFUSED = (
    b"HTTP/1.0 403 Forbidden\r\n\r\n"
    + json.dumps(
        {
            "detail": "policy: WebApp01 is not allowed [policy-account]",
            "problems": [{"code": "policy-account"}],
        }
    ).encode()
)


@ROOT
def test_a_refusal_is_the_engines_message_and_nothing_is_left(host: Host) -> None:
    host.agent.answer = REFUSED
    shown = host.shim("create")
    assert shown.returncode == 1
    assert host.last_words() == "credspec: policy: WebApp01 is not allowed [policy-account]"
    assert shown.stderr == "credspec-runtime: policy: WebApp01 is not allowed [policy-account]\n"
    assert not host.lease.exists()
    assert not (host.bundle / "seen.json").exists(), "the runtime was not run"


@ROOT
def test_what_an_earlier_container_of_the_id_left_is_replaced(host: Host) -> None:
    assert host.shim("create").returncode == 0
    (host.lease / "krb5cc").write_text("the former one's")
    assert host.shim("create").returncode == 0
    assert host.lease.is_mount()
    assert list(host.lease.iterdir()) == []
    # One mount for each container.
    mounts = Path("/proc/self/mountinfo").read_text()
    assert mounts.count(f" {host.lease} ") == 1


@ROOT
def test_the_lease_goes_with_the_container_and_no_sooner(host: Host) -> None:
    host.shim("create")
    (host.states / "c1").mkdir()
    host.write_runtime("exit 1")  # it still runs, and was not to be killed
    assert host.shim("delete").returncode == 1
    assert host.lease.is_mount()
    host.write_runtime(f'rmdir "{host.states}/c1"; exit 0')
    assert host.shim("delete", "--force").returncode == 0
    assert not host.lease.exists()
    assert host.agent.methods == ["PUT", "DELETE"]


@ROOT
def test_an_agent_that_is_gone_keeps_no_container(host: Host) -> None:
    host.shim("create")
    host.agent.close()
    assert host.shim("delete").returncode == 0
    assert not host.lease.exists()


BROKERED = SPEC | {"annotations": {**SPEC["annotations"], "credspec.dev/tickets": "broker"}}
BROKER_GRANTED = GRANTED.removesuffix(b"}") + b', "tickets": "broker"}'
# A runtime that says which process it made, and notes how it was called.
NOTED = """
echo "$*" >> "$(dirname "$0")/calls"
while [ $# -gt 0 ]; do [ "$1" = --pid-file ] && echo $PPID > "$2"; shift; done
exit 0"""


@ROOT
@pytest.mark.parametrize("given", [False, True])
def test_a_container_of_the_broker_is_served_in_its_network_before_it_starts(
    host: Host, *, given: bool
) -> None:
    host.write_config(BROKERED)
    host.agent.answer = BROKER_GRANTED
    host.write_runtime(NOTED)
    path = host.states / "its.pid"
    shown = host.shim("create", *(["--pid-file", str(path)] if given else []))
    assert (shown.returncode, shown.stderr) == (0, "")
    assert [(method, path) for method, path, _ in host.agent.asked] == [
        ("PUT", f"/v1/leases/{host.lease.name}"),
        ("POST", f"/v1/leases/{host.lease.name}/kdc"),
    ]
    assert path.exists() is given
    assert host.lease.is_mount()


@ROOT
def test_a_container_that_the_broker_does_not_serve_is_removed(host: Host) -> None:
    host.write_config(BROKERED)
    host.agent.answer = BROKER_GRANTED
    host.write_runtime(NOTED)
    host.agent.answers["POST"] = REFUSED
    assert host.shim("create").returncode == 1
    assert "policy-account" in host.last_words()
    created, deleted = (host.runtime.parent / "calls").read_text().splitlines()
    assert " create " in created
    assert deleted == f"--root {host.states} --log {host.log} delete --force c1"
    assert host.agent.methods == ["PUT", "POST", "DELETE"]
    assert not host.lease.exists()


@ROOT
def test_a_container_of_the_broker_is_not_run_in_one_step(host: Host) -> None:
    host.write_config(BROKERED)
    host.agent.answer = BROKER_GRANTED
    assert host.shim("run").returncode == 1
    assert host.last_words().endswith("[broker-run]")
    assert not (host.bundle / "seen.json").exists()
    assert not host.lease.exists()


@ROOT
@pytest.mark.parametrize("status", [0, 3])
def test_a_second_container_of_an_id_takes_no_lease(host: Host, status: int) -> None:
    """The runtime refuses it; one that does not has made a container without tickets."""
    (host.states / "c1").mkdir()
    host.write_runtime(f"exit {status}")
    assert host.shim("create").returncode == (status or 1)
    assert host.agent.asked == []
    if status == 0:
        assert host.last_words().endswith("[container-exists]")


@ROOT
def test_only_a_container_without_tickets_is_restored(host: Host) -> None:
    host.write_runtime("exit 7")
    assert host.shim("restore").returncode == 1
    assert host.last_words().endswith("[checkpoint-refused]")
    mount = {"destination": "/run/credspec", "source": str(host.lease), "type": "bind"}
    host.write_config({"mounts": [mount], "process": {}})
    assert host.shim("restore").returncode == 1
    host.write_config({"process": {}})
    assert host.shim("restore").returncode == 7
    (host.bundle / "config.json").unlink()
    assert host.shim("restore").returncode == 7
    assert host.agent.asked == []


@ROOT
def test_a_container_with_tickets_is_not_checkpointed(host: Host) -> None:
    host.write_runtime("exit 0")
    assert host.shim("checkpoint").returncode == 0
    host.shim("create")
    assert host.shim("checkpoint").returncode == 1
    assert host.last_words().endswith("[checkpoint-refused]")


@ROOT
@pytest.mark.parametrize("command", ["state", "start", "kill", "exec", "pause", "update", "ps"])
def test_all_else_is_the_runtimes_whether_there_are_tickets_or_not(
    host: Host, command: str
) -> None:
    host.shim("create")
    host.write_runtime("exit 7")
    assert host.shim(command).returncode == 7
    assert host.lease.is_mount()
    assert host.agent.methods == ["PUT"]


@ROOT
@pytest.mark.parametrize(
    "name",
    [
        "credspec.dev/spec",
        "\\u0063redspec.dev/spec",  # as JSON may write it
        "cr%65dspec.dev/spec",
        "Credspec.dev/spec",
    ],
)
def test_no_spelling_of_the_annotation_starts_a_container_without_its_identity(
    host: Host, name: str
) -> None:
    text = '{"annotations": {"NAME": "file://a.json"}, "process": {}}'.replace("NAME", name)
    (host.bundle / "config.json").write_text(text)
    host.write_runtime("exit 0")
    shown = host.shim("create")
    if shown.returncode == 0:
        assert [m["destination"] for m in host.seen["mounts"]] == ["/run/credspec"]
    else:
        assert not (host.bundle / "seen.json").exists()
        assert "[carrier-misspelt]" in shown.stderr


@ROOT
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGWINCH]
)
def test_signals_reach_the_runtime_and_its_end_is_the_shims(
    host: Host, number: signal.Signals
) -> None:
    host.write_runtime(
        f"trap 'exit 42' {number.name.removeprefix('SIG')}\n"
        f'echo > "{host.bundle}/ready"\n'
        "for i in $(seq 600); do sleep 0.1; done"
    )
    with subprocess.Popen(host.shim_command("run")) as process:
        end = time.monotonic() + 120
        while not (host.bundle / "ready").exists() and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait() == 42
    assert host.agent.methods == ["PUT", "DELETE"]


@ROOT
def test_a_container_inherits_no_ignored_signals(host: Host) -> None:
    host.write_runtime(f'grep SigIgn /proc/self/status > "{host.bundle}/ignored"')
    host.shim("create")
    ignored = int((host.bundle / "ignored").read_text().split()[1], 16)
    assert not ignored & (1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1))


@ROOT
def test_a_lease_is_a_tmpfs_of_its_users_with_no_way_to_run_what_is_in_it(tmp_path: Path) -> None:
    lease = Lease("0" * 32, "/nowhere", str(tmp_path))
    (tmp_path / "leases").mkdir()
    lease.make_directory(WITH_KEYTAB)
    try:
        found = Path(lease.directory).stat()
        assert (found.st_uid, found.st_gid) == (1000, 1001)
        assert stat.S_IMODE(found.st_mode) == WITH_KEYTAB.directory_mode
        (line,) = [
            line
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if f" {lease.directory} " in line
        ]
        fields = line.split()
        assert {"nosuid", "nodev", "noexec"} <= set(fields[5].split(","))
        assert fields[fields.index("-") + 1] == "tmpfs"
        options = dict(o.partition("=")[::2] for o in fields[-1].split(","))
        assert (options["size"], options["nr_inodes"]) == ("16384k", "256")
        cache = Path(lease.directory) / "rcache"
        assert stat.S_IMODE(cache.stat().st_mode) == 0o1777
    finally:
        lease.remove_directory()
    assert list((tmp_path / "leases").iterdir()) == []


@ROOT
def test_without_a_replay_cache_there_is_no_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = Lease("0" * 32, "/nowhere", str(tmp_path))
    (tmp_path / "leases").mkdir()

    def fails(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(lease_module.posix, "chmod", fails)
    with pytest.raises(ShimError, match=r"No space left on device.*lease-directory"):
        lease.make_directory(WITH_KEYTAB)
    assert list((tmp_path / "leases").iterdir()) == []
    # Who does not accept logons needs none.
    lease.make_directory(REQUEST)
    lease.remove_directory()


def test_what_no_agent_will_make_right_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "leases").write_text("")
    lease = Lease("0" * 32, "/nowhere", str(tmp_path))
    with pytest.raises(ShimError, match="Not a directory") as caught:
        lease.make_directory(REQUEST)
    assert not isinstance(caught.value, NotYetError)


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lease:
    """A lease in a user's runtime directory, of which neither level is there yet."""
    (tmp_path / "runtime").mkdir()
    directory = f"{tmp_path}/runtime/credspec/leases"
    monkeypatch.setattr(lease_module, "leases_directory", lambda *_: directory)
    lease = Lease("0" * 32, str(tmp_path / "agent.sock"), "/run/credspec")
    assert lease.is_users
    return lease


def test_a_users_lease_is_the_users_alone(users: Lease) -> None:
    directory = Path(users.directory)
    users.make_directory(WITH_KEYTAB)
    assert stat.S_IMODE(directory.stat().st_mode) == WITH_KEYTAB.directory_mode
    for above in (directory.parent, directory.parent.parent):
        assert stat.S_IMODE(above.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "rcache").stat().st_mode) == 0o1777
    # A second one of the same id finds nothing of the first.
    (directory / "krb5cc").write_text("the former one's")
    users.make_directory(REQUEST)
    assert stat.S_IMODE(directory.stat().st_mode) == REQUEST.directory_mode
    assert list(directory.iterdir()) == []
    users.remove_directory()
    assert list(directory.parent.iterdir()) == []
    users.remove_directory()


def test_links_in_a_users_lease_lead_nowhere(users: Lease, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("kept")
    users.make_directory(REQUEST)
    (Path(users.directory) / "link").symlink_to(tmp_path / "kept")
    users.remove_directory()
    assert not Path(users.directory).exists()
    Path(users.directory).symlink_to(tmp_path / "kept")
    users.remove_directory()
    assert (tmp_path / "kept" / "file").read_text() == "kept"


def test_a_user_without_a_runtime_directory_is_told_how_to_have_one(
    users: Lease, tmp_path: Path
) -> None:
    (tmp_path / "runtime").rmdir()
    with pytest.raises(ShimError, match=r"No such file.*enable-linger.*\[user-directory\]"):
        users.make_directory(REQUEST)


@pytest.mark.parametrize("asked", [REQUEST, WITH_KEYTAB])
@pytest.mark.parametrize("fallback", [True, False])
def test_all_that_is_asked_for_is_sent(asked: TicketRequest, *, fallback: bool) -> None:
    assert lease_request(asked, "c1", "/run/runc/c1", name_fallback=fallback) == {
        "spec": asked.spec,
        "container": "c1",
        "runtime_state": "/run/runc/c1",
        "uid": asked.uid,
        "gid": asked.gid,
        "mode": asked.mode,
        "keytab": asked.keytab,
        "name_fallback": fallback,
        "replay_cache": asked.keytab,
    }


def answered(tmp_path: Path, answer: bytes) -> dict[str, Any]:
    agent = SimulatedAgent(tmp_path / "agent.sock", answer)
    try:
        return agent_client_module.ask_agent(str(tmp_path / "agent.sock"), "PUT", "/v1/x", {"a": 1})
    finally:
        agent.close()


@pytest.mark.parametrize(
    ("answer", "text", "after"),
    [
        (b'HTTP/1.0 403 No\r\n\r\n{"detail": "w: x [c]"}', "w: x [c]", None),
        (b'HTTP/1.0 503 No\r\nRetry-After: 7\r\n\r\n{"detail": "w: x [c]"}', "w: x [c]", 7.0),
        (b'HTTP/1.0 503 No\r\nretry-AFTER:7 \r\n\r\n{"detail": "w: x [c]"}', "w: x [c]", 7.0),
        (b'HTTP/1.0 503 No\r\nRetry-After: soon\r\n\r\n{"detail": "w: x [c]"}', "w: x [c]", None),
        (b'HTTP/1.0 503 No\r\nRetry-After: -1\r\n\r\n{"detail": "w: x [c]"}', "w: x [c]", None),
        (b"HTTP/1.0 500 No\r\n\r\n", "answered 500 [agent-answer]", None),
        (b"HTTP/1.0 500 No\r\n\r\n<html>", "answered 500 [agent-answer]", None),
        (b"HTTP/1.0 500 No\r\n\r\n[]", "answered 500 [agent-answer]", None),
        (b'HTTP/1.0 500 No\r\n\r\n{"detail": ""}', "answered 500 [agent-answer]", None),
        (b"HTTP/1.0 200 OK\r\n\r\n[]", "answered 200 [agent-answer]", None),
        (b"HTTP/1.0 200 OK\r\n\r\n{", "its answer ended early", 0.0),
        (b"\xff" * 40, "[agent-answer]", None),
    ],
)
def test_answers_that_grant_nothing(
    tmp_path: Path, answer: bytes, text: str, after: float | None
) -> None:
    with pytest.raises(ShimError) as caught:
        answered(tmp_path, answer)
    assert text in str(caught.value)
    assert getattr(caught.value, "retry_after", None) == after


def test_answers_that_grant_something(tmp_path: Path) -> None:
    assert answered(tmp_path, GRANTED)["environment"] == {"KRB5CCNAME": "/run/credspec/krb5cc"}
    (tmp_path / "agent.sock").unlink()
    assert answered(tmp_path, b"HTTP/1.0 204 No Content\r\n\r\n") == {}


def test_a_long_answer_is_read_to_its_end(tmp_path: Path) -> None:
    text = "x" * 300_000
    found = answered(tmp_path, b'HTTP/1.0 200 OK\r\n\r\n{"a": "%b"}' % text.encode())
    assert found == {"a": text}


def test_an_agent_that_does_not_answer_is_waited_for_no_longer_than_that(tmp_path: Path) -> None:
    path = str(tmp_path / "agent.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        with pytest.raises(NotYetError, match=r"no answer within 1 s.*\[agent-timeout\]"):
            agent_client_module.ask_agent(path, "PUT", "/v1/x", None, seconds=1)
        # The queue is full: so is the connecting itself.
        with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
            for waiting in (first, second):
                waiting.setblocking(False)
                waiting.connect_ex(path)
            with pytest.raises(NotYetError, match=r"\[agent-timeout\]"):
                agent_client_module.ask_agent(path, "PUT", "/v1/x", None, seconds=1)


def test_a_release_that_fails_is_no_error(tmp_path: Path) -> None:
    Lease("0" * 32, str(tmp_path / "none"), str(tmp_path)).give_back()


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(lambda log: log.mkdir(), id="a directory"),
        pytest.param(lambda log: log.symlink_to(log.parent / "target"), id="a link"),
        pytest.param(Path.absolute, id="a directory that is not there"),
    ],
)
def test_a_log_that_cannot_be_written_leaves_the_reason_on_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], block: Callable[[Path], object]
) -> None:
    log = tmp_path / "log"
    (tmp_path / "target").write_text("kept")
    block(log)
    given = log if os.path.lexists(log) else tmp_path / "none" / "log"
    report(Invocation(["--log", str(given), "create", "c1"]), "reason [code]")
    assert capsys.readouterr().err == "credspec-runtime: reason [code]\n"
    assert (tmp_path / "target").read_text() == "kept"


def test_the_runtimes_log_is_added_to_and_is_the_engines_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    invocation = Invocation(["--log", str(log), "create", "c1"])
    report(invocation, "it waits", level="warning")
    report(invocation, "it failed [code]")
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(entry["level"], entry["msg"]) for entry in entries] == [
        ("warning", "credspec: it waits"),
        ("error", "credspec: it failed [code]"),
    ]
    assert all(time.strptime(entry["time"], "%Y-%m-%dT%H:%M:%SZ") for entry in entries)
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    report(Invocation(["create", "c1"]), "without a log")
    assert "without a log" in capsys.readouterr().err
    assert len(log.read_text().splitlines()) == 2


def test_a_lease_is_where_the_shim_and_the_agent_both_look(tmp_path: Path) -> None:
    (tmp_path / "leases").mkdir()
    lease = Lease("0" * 32, "/s", str(tmp_path))
    assert (lease.is_users, lease.directory) == (False, f"{tmp_path}/leases/{'0' * 32}")
    (tmp_path / "processes").mkdir()
    other = Lease("0" * 32, "/s", str(tmp_path), name="processes")
    assert (other.is_users, other.directory) == (False, f"{tmp_path}/processes/{'0' * 32}")
    assert host_paths.LEASES == "leases"
