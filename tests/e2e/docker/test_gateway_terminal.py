"""Terminals through the gateway: typing, sizes, Ctrl-C, detaching, attaching and signals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from support.engines.docker_gateway import Docker
from support.machine.pseudo_terminal import PATIENCE, terminal

# The distribution's client and one from elsewhere, where there are two.
CLIENTS = sorted(
    {path for path in (shutil.which("docker"), "/usr/bin/docker") if path and Path(path).exists()}
)
DETACH = "\x10\x11"  # ctrl-p ctrl-q
DETACHED = "read escape sequence"  # what the daemon ends the stream with, told by the client
CATCHING = 'trap "echo caught; exit 7" INT; echo ready; while true; do sleep 0.1; done'

Argv = Callable[..., list[str]]


@pytest.fixture(params=CLIENTS)
def argv(request: pytest.FixtureRequest, gateway: Docker, gateway_socket: Path) -> Argv:
    """Make the argument vector of a docker command through the gateway."""
    return lambda *arguments: [request.param, "-H", f"unix://{gateway_socket}", *arguments]


def running(gateway: Docker, name: str) -> bool:
    return json.loads(gateway("inspect", name).stdout)[0]["State"]["Running"]


def interactive(*options: str) -> list[str]:
    return ["run", "-it", "--name=c1", "--network=none", *options, "tiny"]


def test_what_is_typed_arrives_and_the_exit_status_comes_back(argv: Argv) -> None:
    with terminal(argv(*interactive(), "sh")) as tty:
        tty.type("echo $((40 + 2)) $(tty)\n")
        tty.wait_for("42 /dev/pts/0")
        tty.wait_for("# ")  # what is typed before the prompt may be lost
        tty.type("exit 43\n")
        assert tty.exit_status() == 43


def test_the_terminals_size_arrives_at_the_start_and_when_it_changes(argv: Argv) -> None:
    with terminal(argv(*interactive(), "sh"), rows=33, columns=77) as tty:
        tty.ask_until("stty size\n", "\n33 77")
        resize = partial(tty.resize_while_it_runs, 44, 99)
        tty.ask_until("stty size\n", "\n44 99", before=resize)


def test_ctrl_c_reaches_the_containers_process(argv: Argv) -> None:
    with terminal(argv(*interactive(), "sh", "-c", CATCHING)) as tty:
        tty.wait_for("ready")
        tty.type("\x03")
        tty.wait_for("caught")
        assert tty.exit_status() == 7


@pytest.mark.parametrize(
    ("options", "keys"),
    [((), DETACH), (("--detach-keys=ctrl-x,q",), "\x18q")],
    ids=["usual keys", "own keys"],
)
def test_detached_it_runs_on_and_attach_goes_on_with_it(
    argv: Argv, gateway: Docker, options: tuple[str, ...], keys: str
) -> None:
    with terminal(argv(*interactive(*options), "sh")) as tty:
        tty.type("kept=$((40 + 2))\n")
        tty.ask_until("echo is $kept\n", "\nis 42")
        tty.type(keys)
        assert tty.exit_status() == 0
    assert running(gateway, "c1")
    with terminal(argv("attach", *options, "c1")) as tty:
        tty.ask_until("echo still $kept\n", "\nstill 42")
        tty.type(keys)
        tty.wait_for(DETACHED)
    assert running(gateway, "c1")
    with terminal(argv("attach", "c1")) as tty:
        tty.type("exit 5\n")
        assert tty.exit_status() == 5


def wait_for_program(name: str, gateway: Docker) -> None:
    end = time.monotonic() + PATIENCE
    while name not in gateway("top", "c1", "-o", "pid,comm").stdout.split():
        assert time.monotonic() < end, f"{name} does not run"
        time.sleep(0.1)


def test_exec_has_a_terminal_of_its_own(argv: Argv, gateway: Docker) -> None:
    gateway("run", "-d", "--name=c1", "--network=none", "tiny", "sleep", "600")
    with terminal(argv("exec", "-it", "c1", "sh"), rows=20, columns=60) as tty:
        tty.ask_until("stty size\n", "\n20 60")
        resize = partial(tty.resize_while_it_runs, 21, 61)
        tty.ask_until("stty size\n", "\n21 61", before=resize)
        tty.type(f"sh -c '{CATCHING}'\n")
        tty.wait_for("\nready")
        tty.type("\x03")
        tty.wait_for("caught")
        tty.wait_for("# ")  # what is typed before the prompt may be lost
        tty.type("echo status $?\n")
        tty.wait_for("\nstatus 7")
        tty.type("exit 9\n")
        assert tty.exit_status() == 9
    with terminal(argv("exec", "-it", "c1", "cat")) as tty:
        # A line that is typed before the program runs is echoed, too.
        wait_for_program("cat", gateway)
        tty.type("line\n")
        tty.wait_for("line\r\nline")
        tty.type(DETACH)
        tty.wait_for(DETACHED)
    assert "cat" in gateway("top", "c1", "-o", "pid,comm").stdout.split()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_to_the_client_reach_the_container(argv: Argv, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    loop = f'trap "echo got {name}; exit 6" {name}; echo ready; while true; do sleep 0.1; done'
    command = argv("run", "--sig-proxy", "--network=none", "tiny", "sh", "-c", loop)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "ready\n"
        os.kill(client.pid, number)
        assert client.stdout.readline() == f"got {name}\n"
        assert client.wait(PATIENCE) == 6
