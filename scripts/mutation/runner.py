"""Runs tests against one changed module, in a process and a mount namespace of its own.

The changed file is mounted over the real one, so that programs which a test starts have it too, and
nothing in the tree is written.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from enum import Enum
from math import ceil
from pathlib import Path
from typing import Any

_CLONE_NEWNS, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x20000, 0x1000, 0x4000, 0x40000
_OPTIONS = (
    "-q",
    "--no-header",
    "--assert=plain",
    "-p",
    "no:cacheprovider",
    "--hypothesis-profile=mutation",
)
_INTERRUPTED, _INTERNAL_ERROR = 2, 3
_PR_SET_PDEATHSIG = 1
# Loaded once, before the processes part; nothing of the package itself, and nothing with threads.
_LIBRARIES = (
    "aiohttp",
    "click",
    "cryptography.x509",
    "dns.resolver",
    "hypothesis",
    "hypothesis.strategies",
    "jsonschema_rs",
    "krb5",
    "prometheus_client",
    "pytest",
    "rich.console",
    "yaml",
)


class Result(Enum):
    """What the tests said of a change."""

    KILLED = "killed"
    SURVIVED = "survived"
    TIMED_OUT = "timed out"


def load_libraries() -> None:
    """Import what every run needs, so that each starts in a moment."""
    for name in _LIBRARIES:
        importlib.import_module(name)


def record(paths: list[str], files: set[str], log: Path) -> dict[str, Any]:
    """Run tests as they are, in a process of its own; return what a `Recorder` found, as JSON."""
    if not paths:  # which pytest would take for all there are
        return {"lines": {file: {} for file in files}, "seconds": {}, "failed": []}
    reading, writing = os.pipe()

    def run() -> int:
        import pytest

        from mutation.recorder import Recorder

        os.close(reading)
        recorder = Recorder(files)
        status = int(pytest.main([*_OPTIONS, *paths], plugins=[recorder]))
        lines = {
            file: {line: sorted(tests) for line, tests in found.items()}
            for file, found in recorder.lines.items()
        }
        with os.fdopen(writing, "w") as file:
            failed = sorted(recorder.failed)
            json.dump({"lines": lines, "seconds": recorder.seconds, "failed": failed}, file)
        return status

    process = _fork(run, log)
    os.close(writing)
    with os.fdopen(reading) as file:
        text = file.read()
    os.waitpid(process, 0)
    if not text:
        message = f"the tests did not run as they are; see {log}"
        raise RuntimeError(message)
    found: dict[str, Any] = json.loads(text)
    return found


def try_mutant(source: Path, changed: Path, tests: list[str], seconds: float, log: Path) -> Result:
    """Run tests with `changed` in the place of `source`, for at most so many seconds of CPU time.

    On a busy machine the clock says little; what waits for ever ends after five times as long.
    """

    def run() -> int:
        import pytest

        from mutation.recorder import Picked

        resource.setrlimit(resource.RLIMIT_CPU, (ceil(seconds), ceil(seconds) + 5))
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        _mount_over(changed, source)
        files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
        try:
            return int(pytest.main([*_OPTIONS, "-x", *files], plugins=[Picked(tests)]))
        except (ExceptionGroup, pytest.PytestUnraisableExceptionWarning) as error:
            # What a failed test left open is raised at the very end.
            sys.stdout.write(f"{error!r}\n")
            return int(pytest.ExitCode.TESTS_FAILED)

    process = _fork(run, log)
    end = time.monotonic() + 5 * seconds
    while time.monotonic() < end:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            code = os.waitstatus_to_exitcode(status)
            if code == -signal.SIGXCPU:
                return Result.TIMED_OUT
            # A module that cannot be imported interrupts pytest (2), and Python 3.11 may fail when
            # it reports a failure (3); unchanged, none of these tests failed.
            if code > _INTERRUPTED and code != _INTERNAL_ERROR:
                message = f"the tests could not be run; see {log}"
                raise RuntimeError(message)
            return Result.SURVIVED if code == 0 else Result.KILLED
        time.sleep(0.02)
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return Result.TIMED_OUT


def _fork(run: Callable[[], int], log: Path) -> int:
    """Start a process group that writes to a log, and return its number."""
    process = os.fork()
    if process:
        return process
    try:
        os.setsid()
        # Nothing goes on when this is ended.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for fd in (1, 2):
            os.dup2(output, fd)
        status = run()
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001 - it must not go on as its parent
        os.write(2, f"{error!r}\n".encode())
        status = 99
    os._exit(status)


def _mount_over(changed: Path, source: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    private = _MS_REC | _MS_PRIVATE
    if (
        libc.unshare(_CLONE_NEWNS)
        or libc.mount(None, b"/", None, private, None)
        or libc.mount(bytes(changed), bytes(source), None, _MS_BIND, None)
    ):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "mount; this needs root")
