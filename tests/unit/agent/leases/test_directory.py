from __future__ import annotations

from pathlib import Path

import pytest

from credspec.agent.leases.directory import LeaseDirectories, mounted_below

LEASE = "0" * 32


def listed(*points: str) -> str:
    """As proc_pid_mountinfo(5) lists mounts."""
    return "".join(f"36 35 98:0 / {point} rw,noatime shared:1 - tmpfs x rw\n" for point in points)


def test_what_is_mounted_in_a_directory(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    leases = tmp_path / "a b"
    leases.mkdir()
    (tmp_path / "link").symlink_to(leases)
    own = str(leases).replace(" ", "\\040")
    mounts.write_text(listed("/", own, f"{own}/one", f"{own}/two", f"{own}-not/three"))
    assert mounted_below(leases, mounts=mounts) == {"one", "two"}
    assert mounted_below(tmp_path / "link", mounts=mounts) == {"one", "two"}


def test_the_list_of_this_machine() -> None:
    assert "proc" in mounted_below(Path("/"))


@pytest.fixture
def directories(tmp_path: Path) -> LeaseDirectories:
    for name, mode in (("leases", 0o711), ("process-leases", 0o711)):
        (tmp_path / name).mkdir(mode=mode)
        (tmp_path / name).chmod(mode)
    return LeaseDirectories(tmp_path / "leases", tmp_path / "process-leases")


def test_only_root_enters_the_directory_of_containers_leases(
    directories: LeaseDirectories,
) -> None:
    """Also one that an earlier version left open to all."""
    assert directories.close_to_others([(LEASE, "/run/runc/x")])
    assert directories.containers.stat().st_mode & 0o777 == 0o700
    assert directories.processes.stat().st_mode & 0o777 == 0o711


def test_it_stays_open_for_a_process_of_an_earlier_version(directories: LeaseDirectories) -> None:
    """Its tickets are in there, and it runs as another user than root."""
    theirs = str(directories.containers / f"{LEASE}.lock")
    assert not directories.close_to_others([("1" * 32, "/run/runc/x"), (LEASE, theirs)])
    assert directories.containers.stat().st_mode & 0o777 == 0o711
    assert directories.of(LEASE, theirs, None).path == directories.containers / LEASE
    # A lock of another lease's name keeps nothing open.
    assert directories.close_to_others([("1" * 32, theirs)])


def test_where_a_lease_is(directories: LeaseDirectories) -> None:
    lock = str(directories.processes / f"{LEASE}.lock")
    assert directories.of(LEASE, lock, None).path == directories.processes / LEASE
    assert directories.of(LEASE, "/run/runc/x", None).path == directories.containers / LEASE
    assert directories.of("1" * 32, lock, None).path == directories.containers / ("1" * 32)
    of_a_user = directories.of(LEASE, lock, 1000).path
    assert of_a_user == Path("/run/user/1000/credspec/leases") / LEASE
