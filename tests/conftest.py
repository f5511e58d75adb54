"""One real domain for the whole run, shared by integration and e2e tests.

The test process gets a mount namespace of its own, in which it looks like the lab's joined host:
what it mounts is gone with it, and the host's /etc is not touched.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from machine_state import changed, propagation

from credspec.lab import provisioning
from credspec.lab.domain import Lab
from credspec.lab.namespaces import bind

# How long an example takes says more about the machine than about the code.
settings.register_profile("credspec", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# Where nobody has the example database afterwards, a failure says how to have it again.
settings.register_profile("ci", settings.get_profile("credspec"), print_blob=True)
# The same few examples for each changed line (make mutate).
settings.register_profile(
    "mutation", settings.get_profile("credspec"), max_examples=40, derandomize=True, database=None
)
settings.load_profile("ci" if os.environ.get("CI") else "credspec")

# A shell that starts this in the background has it ignore Ctrl-C, and so all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

CLONE_NEWNS, MS_REC, MS_SLAVE, MS_SHARED = 0x20000, 0x4000, 0x80000, 0x100000
MNT_DETACH = 2


def own_mount_namespace() -> None:
    """Leave the host's mount namespace: its mounts still arrive here, ours stay here."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(CLONE_NEWNS) == 0, os.strerror(ctypes.get_errno())
    for flag in (MS_SLAVE, MS_SHARED):
        assert libc.mount(None, b"/", None, MS_REC | flag, None) == 0
    # crun takes the one version of cgroups or the other, but not both at once.
    hybrid = b"/sys/fs/cgroup/unified"
    if Path(hybrid.decode()).is_mount():
        assert libc.umount2(hybrid, MNT_DETACH) == 0


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


@pytest.fixture(scope="session")
def lab_name() -> str:
    """The name of this run's lab, with which those of its further labs begin.

    Two runs side by side need two names.
    """
    return os.environ.get("CREDSPEC_TEST_LAB", "test")


@pytest.fixture(scope="session")
def lab(host_mounts: int, lab_name: str) -> Iterator[Lab]:
    """The domain of this run."""
    own_mount_namespace()
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
