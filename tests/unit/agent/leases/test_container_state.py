from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from credspec.agent.leases.container_state import ContainerStates, _is_out_of_sight

OWN = os.getpid()


def is_there(state: Path, processes: Path) -> bool:
    return ContainerStates(processes).is_there(str(state))


def start_time(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


@pytest.fixture
def first_namespace(tmp_path: Path) -> Path:
    """A view of /proc from which this namespace looks like the first one."""
    view = tmp_path / "proc"
    (view / "self/ns").mkdir(parents=True)
    (view / "self/ns/pid").symlink_to("pid:[4026531836]")
    (view / str(OWN)).symlink_to(f"/proc/{OWN}")
    return view


@pytest.fixture
def ended() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def files(pid: int | str, start: int) -> dict[str, str]:
    """As runc 1.1, crun 1.8 and conmon 2.1 write them, the configuration left out."""
    return {
        "state.json": f'{{"id":"{"c" * 64}","init_process_pid":{pid},"init_process_start":{start},'
        '"created":"2026-11-23T23:08:35.088618502Z","config":{"no_pivot_root":false}}',
        "status": f'{{\n    "pid": {pid},\n    "process-start-time": {start},\n'
        '    "cgroup-path": "/x"\n}\n',
        "pidfile": str(pid),
    }


@pytest.mark.parametrize("name", ["state.json", "status", "pidfile"])
def test_each_runtimes_own_words(
    tmp_path: Path, first_namespace: Path, ended: int, name: str
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / name).write_text(files(OWN, start_time(OWN))[name])
    assert is_there(state, first_namespace)
    (state / name).write_text(files(ended, 1)[name])
    assert not is_there(state, first_namespace)


@pytest.mark.parametrize("name", ["state.json", "status"])
def test_a_number_that_another_process_has_now(
    tmp_path: Path, first_namespace: Path, name: str
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / name).write_text(files(OWN, start_time(OWN) - 1)[name])
    assert not is_there(state, first_namespace)


def test_a_process_that_nobody_has_reaped(tmp_path: Path, first_namespace: Path) -> None:
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    (first_namespace / str(process.pid)).symlink_to(f"/proc/{process.pid}")
    (tmp_path / "pidfile").write_text(str(process.pid))
    assert not is_there(tmp_path, first_namespace)
    process.wait()


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "{}", '{"pid": "x"}', '{"pid": null}', '{"pid": {}}', "-1"],
)
def test_what_is_not_understood_is_no_reason(
    tmp_path: Path, first_namespace: Path, content: str
) -> None:
    for name in files(1, 1):
        (tmp_path / name).write_text(content)
    assert is_there(tmp_path, first_namespace)


def test_processes_of_another_namespace_are_unknown(
    tmp_path: Path, first_namespace: Path, ended: int
) -> None:
    (tmp_path / "pidfile").write_text(str(ended))
    (first_namespace / "self/ns/pid").unlink()
    (first_namespace / "self/ns/pid").symlink_to("pid:[4026532000]")
    assert is_there(tmp_path, first_namespace)


def test_a_process_that_cannot_be_seen_counts(tmp_path: Path, first_namespace: Path) -> None:
    """As for a service with ``ProtectProc=invisible``."""
    (first_namespace / str(OWN)).unlink()
    (tmp_path / "pidfile").write_text(str(OWN))
    assert is_there(tmp_path, first_namespace)


@pytest.mark.parametrize("pid", ["0", str(2**22 + 1), str(2**31), str(2**64), "9" * 30])
@pytest.mark.parametrize("name", ["state.json", "status", "pidfile"])
def test_a_number_that_is_no_process_is_no_reason(
    tmp_path: Path, first_namespace: Path, name: str, pid: str
) -> None:
    """In kill(2), 0 is this process's group; and a number too large must not end the sweep."""
    (tmp_path / name).write_text(files(pid, 1)[name])
    assert is_there(tmp_path, first_namespace)


def test_a_process_of_another_user_is_one_simulated(
    tmp_path: Path, first_namespace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for an agent without CAP_KILL."""

    def kill(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    (tmp_path / "state.json").write_text(files(OWN, start_time(OWN))["state.json"])
    monkeypatch.setattr(os, "kill", kill)
    assert is_there(tmp_path, first_namespace)
    # Its start still tells it from another process of the number.
    (tmp_path / "state.json").write_text(files(OWN, start_time(OWN) + 1)["state.json"])
    assert not is_there(tmp_path, first_namespace)


def test_a_process_that_ends_while_it_is_looked_at_simulated(
    tmp_path: Path, first_namespace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> bytes:
        raise ProcessLookupError(errno.ESRCH, "No such process")

    (tmp_path / "pidfile").write_text(str(OWN))
    with monkeypatch.context() as patch:
        patch.setattr(os, "read", read)
        assert not is_there(tmp_path, first_namespace)
    assert is_there(tmp_path, first_namespace)


def test_where_proc_does_not_say_its_namespace_ended_processes_count_as_ended(
    tmp_path: Path, ended: int
) -> None:
    (tmp_path / "pidfile").write_text(str(ended))
    assert not is_there(tmp_path, tmp_path / "no-proc")


def test_what_is_remembered_is_of_the_directories_that_are_kept(
    tmp_path: Path, first_namespace: Path
) -> None:
    states = ContainerStates(first_namespace)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pidfile").write_text(str(OWN))
        assert states.is_there(str(tmp_path / name))
    states.keep({str(tmp_path / "two")})
    assert list(states._known) == [str(tmp_path / "two")]
    (tmp_path / "two" / "pidfile").unlink()
    (tmp_path / "two").rmdir()
    assert not states.is_there(str(tmp_path / "two"))
    assert states._known == {}


def test_no_directory(tmp_path: Path) -> None:
    assert not is_there(tmp_path / "nothing", Path("/proc"))


def test_a_container_that_was_started_anew(
    tmp_path: Path, first_namespace: Path, ended: int
) -> None:
    """Its directory names another process than when it was looked at before."""
    states = ContainerStates(first_namespace)
    process = subprocess.Popen(["sleep", "60"])
    (first_namespace / str(process.pid)).symlink_to(f"/proc/{process.pid}")
    (tmp_path / "status").write_text(files(process.pid, start_time(process.pid))["status"])
    assert states.is_there(str(tmp_path))
    (tmp_path / "status").write_text(files(OWN, start_time(OWN))["status"])
    process.kill()
    process.wait()
    assert states.is_there(str(tmp_path))
    (tmp_path / "status").write_text(files(ended, 1)["status"])
    assert states.is_there(str(tmp_path)), "as long as the process that is known lives"
    states.keep(())
    assert not states.is_there(str(tmp_path))


@pytest.mark.parametrize("name", ["state.json", "status", "pidfile"])
def test_a_pipe_in_place_of_a_file_holds_nobody_up(
    tmp_path: Path, first_namespace: Path, name: str
) -> None:
    os.mkfifo(tmp_path / name)
    assert is_there(tmp_path, first_namespace)


@pytest.mark.parametrize(
    ("state", "there"),
    [
        ("/" + "a" * 300, False),
        ("/" + "a/" * 3000, False),
        ("/etc/passwd/x", False),
        ("/\0", False),
    ],
)
def test_paths_that_name_nothing(state: str, there: bool, first_namespace: Path) -> None:
    assert ContainerStates(first_namespace).is_there(state) is there


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE])
def test_what_cannot_be_looked_at_counts_simulated(
    number: int, first_namespace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> os.stat_result:
        raise OSError(number, os.strerror(number))

    states = ContainerStates(first_namespace)
    monkeypatch.setattr(os, "stat", fails)
    found = states.is_there("/nowhere")
    monkeypatch.undo()
    assert found


def test_a_directory_below_run_whose_surroundings_are_hidden() -> None:
    """A unit may hide the runtimes' directories: then nothing can be said, and the lease stays."""
    states = ContainerStates()
    assert states.is_there("/run/credspec-no-such-engine/moby/c1")
    assert states.is_there("/var/run/credspec-no-such-engine/moby/c1/")
    # Its surroundings are seen, and it is not in them.
    assert not states.is_there("/run/credspec-no-such-container")
    # Elsewhere nothing is hidden.
    assert not states.is_there("/srv/credspec-no-such-engine/c1")
    assert not states.is_there("/run/" + "a" * 300 + "/c1")
    assert not states.is_there("/run/" + "a/" * 3000 + "c1")


@pytest.mark.root  # to write to /run
def test_a_container_whose_parent_directory_went_with_it() -> None:
    """As with Podman, whose directory of a container holds the one that is looked at."""
    engine = Path("/run", f"credspec-test-engine-{OWN}")
    (engine / "containers").mkdir(parents=True)
    try:
        assert not ContainerStates().is_there(f"{engine}/containers/c1/userdata")
    finally:
        shutil.rmtree(engine)


@pytest.mark.root  # to write to /run
def test_a_tree_that_was_removed_and_made_again() -> None:
    """A unit that binds the old one sees an empty directory that is nowhere any more."""
    top = Path("/run", f"credspec-test-{OWN}")
    top.mkdir()
    descriptor = os.open(top, os.O_RDONLY)
    try:
        top.rmdir()
        assert not ContainerStates().is_there(f"/proc/self/fd/{descriptor}/c1")
        assert _is_out_of_sight(f"/run/../proc/self/fd/{descriptor}/c1")
    finally:
        os.close(descriptor)
