"""The socket that systemd passes, to a process that it starts with one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from credspec.api_client import AgentClient
from credspec.errors import CredspecError

# As systemd does it: the socket is descriptor 3, and the variables name this process.
ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": sys.argv[2] or str(os.getpid()), "LISTEN_FDS": "1"}
exec(sys.argv[3])
"""
INHERIT = """
from pathlib import Path
from credspec.agent.service_sockets import inherited_listener
from credspec.errors import CredspecError
try:
    found = inherited_listener(Path(PATH))
    print(found and found.getsockname(), found and os.get_inheritable(found.fileno()))
except CredspecError as error:
    print(error.code)
print([name for name in os.environ if name.startswith("LISTEN_")])
"""
# With a second one, that the service manager kept under a name.
KEPT = """
import socket
kept = socket.socket()
kept.bind(("127.0.0.1", 0))
os.dup2(kept.fileno(), 4)
os.environ |= {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "credspec-agent.socket:kdc-0123"}
from credspec.agent.service_sockets import stored_sockets
found = stored_sockets()
print({name: [s.getsockname() == kept.getsockname() for s in each] for name, each in found.items()})
"""
REFUSE = """
from credspec.agent.service_sockets import refuse_waiting_callers
from credspec.errors import UsageError
refuse_waiting_callers(UsageError.of("config-unknown-key", "unknown key", where="config.toml: x"))
"""


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "agent.sock"))
        made.listen(16)
        yield made


def activated(
    listener: socket.socket, program: str, *, path: str = "", pid: str = ""
) -> subprocess.CompletedProcess[str]:
    program = f"PATH = {path or listener.getsockname()!r}\n{program}"
    return subprocess.run(
        [sys.executable, "-c", ACTIVATE, str(listener.fileno()), pid, program],
        pass_fds=(listener.fileno(),),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_it_is_taken_and_not_handed_on(listener: socket.socket) -> None:
    shown = activated(listener, INHERIT)
    assert shown.stdout == f"{listener.getsockname()} False\n[]\n", shown.stderr


def test_what_was_kept_for_leases_is_left_to_them(listener: socket.socket) -> None:
    shown = activated(listener, KEPT + INHERIT)
    lines = shown.stdout.splitlines()
    assert lines == ["{'0123': [True]}", f"{listener.getsockname()} False", "[]"], shown.stderr


def test_one_at_another_path_is_refused(listener: socket.socket) -> None:
    shown = activated(listener, INHERIT, path="'/run/credspec/agent.sock'")
    assert shown.stdout == "agent-socket-differs\n[]\n"


def test_one_for_another_process_is_left_alone(listener: socket.socket) -> None:
    shown = activated(listener, INHERIT, pid=str(os.getpid()))
    assert shown.stdout == "None None\n[]\n"


def test_a_process_without_one() -> None:
    shown = subprocess.run(
        [sys.executable, "-c", f"import os\nPATH = '/x'\n{INHERIT}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == "None None\n[]\n"


@pytest.mark.root  # others get no answer
def test_whoever_waits_is_told_why(listener: socket.socket, tmp_path: Path) -> None:
    said: list[str] = []

    def call(body: object) -> None:
        try:
            AgentClient(tmp_path / "agent.sock", seconds=30).request("PUT", "/v1/leases/x", body)
        except CredspecError as error:
            said.append(error.code)

    # Small and large requests; the largest do not fit into what a socket holds.
    callers = [
        threading.Thread(target=call, args=({"spec": "x" * size},)) for size in (1, 10, 250_000)
    ]
    # A caller that says nothing must not keep the others from their answer.
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(tmp_path / "agent.sock"))
        for caller in callers:
            caller.start()
        while True:
            shown = activated(listener, REFUSE)
            assert shown.returncode == 0, shown.stderr
            for caller in callers:
                caller.join(1)
            if not any(caller.is_alive() for caller in callers):
                break
    assert said == ["config-unknown-key"] * 3
