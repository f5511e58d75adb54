"""Where a gMSA's password and keys could be left: files, arguments, environments, logs, memory."""

from __future__ import annotations

import base64
import os
import re
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from credspec.errors import CredspecError
from credspec.kerberos.keys import computer_salt, derive_keys, munged_utf8
from credspec.kerberos.krb5_conf import AgentKrb5Conf
from credspec.lab.domain import Lab
from credspec.session.domain_session import DomainSession
from support.agent.agent_process import AgentProcess

ACCOUNT = "WebApp01$"
REGION = re.compile(r"^(\w+)-(\w+) rw\S+ \S+ \S+ \S+ *(.*)$", re.MULTILINE)


@pytest.fixture
def agent(lab: Lab, krb5_conf: AgentKrb5Conf, tmp_path: Path) -> Iterator[AgentProcess]:
    found = AgentProcess(lab, tmp_path)
    yield found
    found.close()


@pytest.fixture
def secrets(lab: Lab, session: DomainSession) -> dict[str, bytes]:
    """The password and every key that is made of it, as the domain has them now."""
    with session.passwords.overwriting():
        _, realm, password = session.passwords.read(ACCOUNT)
    keys = derive_keys(password.current, computer_salt(realm, ACCOUNT))
    return {
        "password": password.current[:64],
        "middle of the password": password.current[96:160],
        "end of the password": password.current[-64:],
        "password as text": munged_utf8(password.current)[:64],
        "middle of the text": munged_utf8(password.current)[150:214],
        "end of the text": munged_utf8(password.current)[-64:],
        **{f"key of enctype {key.enctype}": key.value for key in keys},
    }


def memory_of(pid: int) -> Iterator[bytes]:
    """Read all that a process could lose in a core dump, as root can."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for low, high, path in re.findall(
            r"^(\w+)-(\w+) rw\S+ \S+ \S+ \S+ *(.*)$", maps, re.MULTILINE
        ):
            if path in {"[vvar]", "[vsyscall]"}:
                continue
            memory.seek(int(low, 16))
            try:
                yield memory.read(int(high, 16) - int(low, 16))
            except OSError:
                continue


def found_in(data: bytes, secrets: dict[str, bytes]) -> set[str]:
    return {name for name, value in secrets.items() if value in data}


def test_the_search_finds_what_is_there(secrets: dict[str, bytes]) -> None:
    holder = bytearray(secrets["password"])
    found = set().union(*(found_in(part, secrets) for part in memory_of(os.getpid())))
    assert "password" in found
    assert found_in(bytes(holder), secrets) == {"password"}


def test_nothing_stays_in_the_agents_memory(agent: AgentProcess, secrets: dict[str, bytes]) -> None:
    agent.start()
    agent.mount(1)
    agent.put(1)
    with pytest.raises(CredspecError):
        agent.put(2, "file://absent.json")
    assert agent.process is not None
    found = set().union(*(found_in(part, secrets) for part in memory_of(agent.process.pid)))
    assert found == set()


def files_changed_since(moment: float, apart_from: tuple[Path, ...]) -> Iterator[Path]:
    """Every regular file of every file system that changed since then."""
    kernels_own = {"proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "debugfs", "tracefs"}
    mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in {path for path, kind in mounts if kind not in kernels_own}:
        with suppress(OSError):  # a mount that another one hides
            yield from _changed_below(mount, Path(mount).lstat().st_dev, moment, apart_from)


def workers_directories(base: Path) -> tuple[Path, ...]:
    """The temporary directories of a run's other workers; none where it has one process."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return ()
    return tuple(path for path in base.parent.iterdir() if path != base)


def _changed_below(
    directory: str, device: int, moment: float, apart_from: tuple[Path, ...]
) -> Iterator[Path]:
    try:
        entries = list(os.scandir(directory))
    except OSError:
        return
    for entry in entries:
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        if stat.S_ISDIR(status.st_mode):
            # Each file system once; what is mounted below has its own turn.
            if status.st_dev == device and Path(entry.path) not in apart_from:
                yield from _changed_below(entry.path, device, moment, apart_from)
        elif stat.S_ISREG(status.st_mode) and status.st_ctime >= moment:
            yield Path(entry.path)


def test_nothing_is_on_any_disk_or_in_any_process(
    lab: Lab,
    agent: AgentProcess,
    secrets: dict[str, bytes],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    began = time.time() - 1
    agent.start()
    agent.mount(1)
    agent.put(1)
    for spec in ("file://absent.json", 'raw://{"CmsPlugins": 7}'):
        with pytest.raises(CredspecError):
            agent.put(2, spec)
    (tmp_path / "planted").write_bytes(b"x" + secrets["password"])
    found = {}
    # The domain's own database is where the password comes from, and tests that run beside this
    # one may export a keytab.
    of_others = workers_directories(tmp_path_factory.getbasetemp())
    for path in files_changed_since(began, (lab.directory / "dc", *of_others)):
        try:
            names = found_in(path.read_bytes(), secrets)
        except OSError:
            continue
        if names:
            found[path] = names
    # The search found what was planted, and nothing else.
    assert found.pop(tmp_path / "planted") == {"password"}
    assert found == {}
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                assert not found_in((process / name).read_bytes(), secrets)
            except OSError:
                continue
    # What files would hide: the printed forms.
    text = agent.log.read_text() + agent.audit_log.read_text()
    for value in secrets.values():
        for form in (value.hex(), repr(value)[2:-1], base64.b64encode(value).decode()[:40]):
            assert form not in text


def test_a_forced_core_is_not_written(agent: AgentProcess, tmp_path: Path) -> None:
    pattern = Path("/proc/sys/kernel/core_pattern")
    before = pattern.read_text()
    pattern.write_text(f"{tmp_path}/core.%e.%p\n")
    try:
        victim = subprocess.Popen(["bash", "-c", "ulimit -c unlimited; exec sleep 60"])
        while b"sleep" not in Path(f"/proc/{victim.pid}/cmdline").read_bytes().split(b"\0")[0]:
            time.sleep(0.01)
        victim.send_signal(signal.SIGABRT)
        assert victim.wait(60) == -signal.SIGABRT
        assert list(tmp_path.glob(f"core.*.{victim.pid}"))  # so it does work for others
        agent.start()
        assert agent.process is not None
        pid = agent.process.pid
        assert agent.end(signal.SIGABRT) == -signal.SIGABRT
        # The pattern is the machine's: a test beside this one may have a program that has one.
        assert not list(tmp_path.glob(f"core.*.{pid}"))
    finally:
        pattern.write_text(before)


def test_the_process_has_no_more_than_it_needs(agent: AgentProcess) -> None:
    agent.start()
    assert agent.process is not None
    lines = Path(f"/proc/{agent.process.pid}/status").read_text().splitlines()
    status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(status[name], 16) == 0b11, name  # CAP_CHOWN and CAP_DAC_OVERRIDE
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    # Out of swap, or it says that this host's limits do not allow it.
    is_locked = int(status["VmLck"].split()[0]) > 1000
    assert is_locked != ("process-not-hardened" in agent.log.read_text())
