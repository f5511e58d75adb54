"""Programs run by another process, which gets signals at every moment there is."""

from __future__ import annotations

import os
import pty
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from credspec.run.supervised_program import PASSED_ON

ALL = sorted(PASSED_ON)
# Runs a program as `credspec run` does, and sends itself a signal at a point of its choice.
DRIVER = """
import os, signal, subprocess, sys
from credspec.errors import CredspecError
from credspec.run import supervised_program
from credspec.run.supervised_program import held_signals, run_program
point, number, *command = sys.argv[1:]
def send(at):
    if at == point:
        os.kill(os.getpid(), int(number))
class Popen(subprocess.Popen):
    def __init__(self, *arguments, **options):
        send("before the start")
        super().__init__(*arguments, **options)
        # It runs, and nobody has its number yet.
        send("after the start")
    def poll(self):
        found = super().poll()
        send("before the end" if found is None else "after the end")
        return found
supervised_program.subprocess.Popen = Popen
try:
    with held_signals() as held:
        with held.interruptible():
            send("before")
        send("between")
        status = run_program(command, dict(os.environ), held)
    print("cleaned up", flush=True)
except CredspecError as error:
    print(error, flush=True)
    sys.exit(error.exit_status)
except SystemExit:
    print("cleaned up", flush=True)
    raise
sys.exit(status)
"""
# Says which signal it got, once; ends by itself long after every test.
CATCHING = """
import os, signal, sys, time
def got(number, _):
    os.write(1, b"got %d\\n" % number)  # print may be at work
    sys.exit(number)
for number in map(int, sys.argv[1:]):
    signal.signal(number, got)
print("ready", flush=True)
time.sleep(300)
"""


def driver(point: str, number: int, *command: str) -> list[str]:
    return [sys.executable, "-c", DRIVER, point, str(number), *command]


def run(
    point: str, number: int, *command: str, **options: object
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        driver(point, number, *command),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        **options,  # type: ignore[call-overload]
    )


@pytest.mark.parametrize("number", ALL)
@pytest.mark.parametrize(
    "point", ["between", "before the start", "after the start", "before the end"]
)
def test_a_signal_at_any_moment_reaches_the_program(
    point: str, number: int, tmp_path: Path
) -> None:
    # A shell that lives until a signal ends it, and is not left behind.
    mark = tmp_path / "pid"
    shown = run(point, number, "sh", "-c", f"echo $$ > {mark}; exec sleep 300")
    assert (shown.returncode, shown.stdout) == (128 + number, "cleaned up\n"), shown.stderr
    if mark.exists() and (pid := mark.read_text().strip()):
        assert not Path("/proc", pid).exists()


@pytest.mark.parametrize("number", ALL)
def test_before_there_is_a_program_it_ends_at_once(number: int, tmp_path: Path) -> None:
    shown = run("before", number, "touch", str(tmp_path / "started"))
    assert (shown.returncode, shown.stdout) == (128 + number, "cleaned up\n")
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("number", ALL)
def test_after_the_end_it_changes_nothing(number: int) -> None:
    shown = run("after the end", number, "sh", "-c", "exit 7")
    assert (shown.returncode, shown.stdout) == (7, "cleaned up\n")


@pytest.mark.parametrize("seed", range(12))
def test_signals_at_random_moments(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    number = chance.choice(ALL)
    marks = tmp_path / "pids"
    command = driver("nowhere", 0, "sh", "-c", f"echo $$ >> {marks}; exec sleep 300")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        # Python's own start ends by such a signal as every program's does.
        wait_until_it_holds(process.pid)
        time.sleep(chance.random() * 0.05)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (128 + number, "cleaned up\n")
    for pid in marks.read_text().split() if marks.exists() else ():
        assert not Path("/proc", pid).exists()


def wait_until_it_holds(pid: int) -> None:
    """Wait for its handlers, which come after the block; a wait for signals hides the block."""
    while True:
        status = Path(f"/proc/{pid}/status").read_text()
        found = re.search(r"^SigCgt:\t(\w+)$", status, re.MULTILINE)
        assert found is not None
        if int(found[1], 16) & 1 << (signal.SIGUSR1 - 1):
            return


def test_a_program_gets_many_signals_each_once() -> None:
    program = [sys.executable, "-c", CATCHING, str(int(signal.SIGUSR1))]
    with subprocess.Popen(
        driver("nowhere", 0, *program), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == f"got {signal.SIGUSR1:d}\n"
        assert process.wait(60) == signal.SIGUSR1


def test_what_was_ignored_stays_ignored_for_the_program() -> None:
    shown = subprocess.run(
        ["nohup", *driver("after the start", signal.SIGHUP, "grep", "SigIgn", "/proc/self/status")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert shown.returncode == 0
    assert int(shown.stdout.split()[1], 16) & 1 << (signal.SIGHUP - 1)


def test_the_program_has_the_mask_and_the_handlers_that_it_would_have_alone() -> None:
    shown = run("nowhere", 0, "grep", "Sig", "/proc/self/status")
    alone = subprocess.run(
        ["grep", "Sig", "/proc/self/status"], capture_output=True, text=True, check=True
    )
    names = ("SigBlk", "SigCgt", "SigIgn")
    lines = [line for line in shown.stdout.splitlines() if line.startswith(names)]
    assert lines == [line for line in alone.stdout.splitlines() if line.startswith(names)]


def test_a_parent_that_ignores_the_end_of_children() -> None:
    program = f"import signal, runpy, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n{DRIVER}"
    shown = subprocess.run(
        [sys.executable, "-c", program, "nowhere", "0", "sh", "-c", "exit 9"], check=False
    )
    assert shown.returncode == 9


def test_a_terminals_signal_comes_once() -> None:
    """The terminal sends it to the program, too, which must not have it twice."""
    counting = (
        "import signal, sys, time; n = []; signal.signal(signal.SIGINT, lambda *_: n.append(1))\n"
        "print('ready', flush=True)\n"
        "while not n: time.sleep(0.01)\n"
        "time.sleep(0.5); print('times', len(n), flush=True); sys.exit(len(n))"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        command = driver("nowhere", 0, sys.executable, "-c", counting)
        os.execv(command[0], command)  # noqa: S606 - no shell is wanted
    shown = b""
    with os.fdopen(terminal, "r+b", buffering=0) as file:
        while b"ready" not in shown:
            shown += file.read(4096)
        file.write(b"\x03")
        # A terminal gives a line in parts.
        while not re.search(rb"times \d+\r\n", shown):
            shown += file.read(4096)
    assert b"times 1" in shown
    os.waitpid(pid, 0)


@pytest.mark.parametrize(
    ("make", "status"),
    [
        (lambda _: None, 127),
        (lambda path: path.write_text("#!/bin/sh\n"), 126),
        (lambda path: path.mkdir(), 126),
        (lambda path: (path.write_bytes(b"\x7fELF"), path.chmod(0o755)), 126),
    ],
    ids=["missing", "not executable", "a directory", "of no known form"],
)
def test_programs_that_cannot_be_started(make, status: int, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    program = tmp_path / "program"
    make(program)
    shown = run("nowhere", 0, str(program))
    assert (shown.returncode, "[program-not-started]" in shown.stdout) == (status, True)
