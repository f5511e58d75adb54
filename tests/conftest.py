"""One real domain for the whole run, shared by integration and e2e tests.

The test process gets a mount namespace of its own, in which it looks like the lab's joined host:
what it mounts is gone with it, and the host's /etc is not touched.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from credspec.lab import provisioning
from credspec.lab.domain import Lab, all_labs
from credspec.lab.namespaces import bind
from support.machine.machine_state import changed, propagation
from support.machine.mount_namespaces import own_mount_namespace, own_runtime_directories
from support.suite import command_output, generated_input, parallel, requirements

# A shell that starts this in the background has it ignore Ctrl-C, and so all that it starts; what
# tests start must have each signal's default.
signal.signal(signal.SIGINT, signal.default_int_handler)
for ignored in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD):
    if signal.getsignal(ignored) == signal.SIG_IGN:
        signal.signal(ignored, signal.SIG_DFL)

SEED = "CREDSPEC_ABUSE_SEED"


def pytest_configure() -> None:
    # Workers inherit it.
    os.environ.setdefault(SEED, str(random.SystemRandom().randrange(1, 10**6)))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what it takes to repeat what was chosen by chance; workers' own output is not shown."""
    failed = terminalreporter.getreports("failed") + terminalreporter.getreports("error")
    if any("abuse" in report.nodeid for report in failed):
        terminalreporter.write_line(f"Abuse tests: {SEED}={os.environ[SEED]} repeats this run.")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return parallel.make_scheduler(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    parallel.longest_first(items)
    generated_input.limit_examples(items)
    requirements.mark(items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    command_output.add_command_output(report, call.excinfo and call.excinfo.value)
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove the labs of workers that have crashed, but not those of another run."""
    if session.config.getoption("numprocesses", None) and parallel.worker_number() is None:
        names = re.compile(f"({re.escape(run_name())}-[0-9]+)(-.+)?")
        for left in list(all_labs()):
            found = names.fullmatch(left.name)
            claim = parallel.claimed(found[1]) if found else None
            if claim is not None:
                with claim:
                    left.down()


@pytest.fixture(scope="session")
def host_mounts() -> Iterator[int]:
    """A descriptor of the host's mount namespace, for what needs the host's name resolution.

    After the tests, what was mounted there propagates as before.
    """
    fd = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    before = propagation()
    try:
        yield fd
        command = ["nsenter", f"--mount=/proc/self/fd/{fd}", "cat", "/proc/self/mountinfo"]
        now = subprocess.run(command, capture_output=True, text=True, check=True, pass_fds=[fd])
        assert changed("propagation of", before, propagation(now.stdout)) == []
    finally:
        os.close(fd)


def run_name() -> str:
    """The name of this run: two runs side by side need two names."""
    return os.environ.get("CREDSPEC_TEST_LAB", "test")


@pytest.fixture(scope="session")
def lab_name() -> Iterator[str]:
    """The name of this worker's lab, with which those of its further labs begin."""
    worker = parallel.worker_number()
    name = run_name() if worker is None else f"{run_name()}-{worker}"
    claim = parallel.claimed(name)
    if claim is None:
        pytest.exit(f"another run has the lab {name}: set CREDSPEC_TEST_LAB to another name", 2)
    with claim:
        yield name


@pytest.fixture(scope="session")
def lab(host_mounts: int, lab_name: str) -> Iterator[Lab]:
    """The domain of this run."""
    own_mount_namespace()
    own_runtime_directories()
    found = provisioning.up(lab_name)
    try:
        for name in ("resolv.conf", "hosts"):
            bind(found.directory / name, Path("/etc", name).resolve())
        variables = dict(found.environment)
        variables["KRB5CCNAME"] = "MEMORY:credspec-host"
        before = dict(os.environ)
        os.environ.update(variables)
        yield found
        os.environ.clear()
        os.environ.update(before)
    finally:
        found.down()
