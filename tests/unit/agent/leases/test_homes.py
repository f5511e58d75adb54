"""Homes with real files: where a lease is, who may name it, when its container lives."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.agent.leases import homes as homes_module
from credspec.agent.leases.container_state import ContainerStates
from credspec.agent.leases.directory import LeaseDirectory
from credspec.agent.leases.home import Look
from credspec.agent.leases.homes import (
    KINDS,
    Homes,
    HostHome,
    HostProcessHome,
    TreeHome,
    UserHome,
    UserProcessHome,
    VolumeHome,
    is_place,
)
from credspec.contract import c_library
from credspec.errors import CredspecError, NotPermittedError

LEASE = "0" * 32
UID = os.geteuid()


@dataclass(frozen=True)
class Record:
    """What is known of a home."""

    lease_id: str = LEASE
    runtime_state: str = "/run/runc/x"
    user: int | None = None
    place: str | None = None


@pytest.fixture
def homes(tmp_path: Path) -> Homes:
    for name in ("leases", "process-leases"):
        (tmp_path / name).mkdir(mode=0o711)
        (tmp_path / name).chmod(0o711)
    volumes = tmp_path / "volumes"
    volumes.mkdir(mode=0o700)
    return Homes(tmp_path / "leases", tmp_path / "process-leases", volumes=volumes)


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory on a tmpfs."""
    found = Path(tempfile.mkdtemp(prefix="credspec-test-", dir="/dev/shm"))
    yield found
    shutil.rmtree(found)


def look(*mounted: str, is_new: bool = False) -> Look:
    return Look(frozenset(mounted), ContainerStates(), is_new)


def test_only_root_enters_the_directory_of_containers_leases(homes: Homes) -> None:
    """Also one that an earlier version left open to all."""
    assert homes.close_to_others([Record()])
    assert homes.containers.stat().st_mode & 0o777 == 0o700
    assert homes.processes.stat().st_mode & 0o777 == 0o711


def test_it_stays_open_for_a_process_of_an_earlier_version(homes: Homes) -> None:
    """Its tickets are in there, and it runs as another user than root."""
    theirs = Record(runtime_state=str(homes.containers / f"{LEASE}.lock"))
    assert not homes.close_to_others([Record("1" * 32), theirs])
    assert homes.containers.stat().st_mode & 0o777 == 0o711
    home = homes.of(theirs)
    assert isinstance(home, HostProcessHome)
    assert home.directory.path == homes.containers / LEASE
    # A lock of another lease's name keeps nothing open.
    assert homes.close_to_others([Record("1" * 32, theirs.runtime_state)])


@pytest.mark.parametrize(
    ("record", "kind", "path", "inside"),
    [
        (Record(), HostHome, "LEASES/ID", "/run/credspec"),
        (Record(runtime_state="PROCESSES/ID.lock"), HostProcessHome, "PROCESSES/ID", "PATH"),
        (Record(runtime_state="LEASES/ID.lock"), HostProcessHome, "LEASES/ID", "PATH"),
        # A lock of another lease's name is no lock of this one's.
        (Record("1" * 32, "PROCESSES/ID.lock"), HostHome, f"LEASES/{'1' * 32}", "/run/credspec"),
        (Record(runtime_state="VOLUMES/ID"), VolumeHome, "VOLUMES/ID", "/run/credspec"),
        # Another volume's directory, and a user's request, make no volume.
        (Record("1" * 32, "VOLUMES/ID"), HostHome, f"LEASES/{'1' * 32}", "/run/credspec"),
        (
            Record(user=1000, runtime_state="VOLUMES/ID"),
            UserHome,
            "USERS/1000/credspec/leases/ID",
            "/run/credspec",
        ),
        (Record(user=1000), UserHome, "USERS/1000/credspec/leases/ID", "/run/credspec"),
        # A user's request is never in a directory of the host's own.
        (
            Record(user=1000, runtime_state="PROCESSES/ID.lock"),
            UserHome,
            "USERS/1000/credspec/leases/ID",
            "/run/credspec",
        ),
        (
            Record(user=1000, runtime_state="USERS/1000/credspec/leases/ID.lock"),
            UserProcessHome,
            "USERS/1000/credspec/leases/ID",
            "PATH",
        ),
        (Record(place="/t/lease/account"), TreeHome, "/t/lease/account", None),
        (Record(place="/t/lease/account", user=1000), TreeHome, "/t/lease/account", None),
        (Record(place="/t/l/a", runtime_state="/t/l/a.lock"), TreeHome, "/t/l/a", None),
    ],
)
def test_where_a_lease_is(
    homes: Homes, record: Record, kind: type, path: str, inside: str | None
) -> None:
    def full(text: str) -> str:
        for name, value in (
            ("LEASES", homes.containers),
            ("PROCESSES", homes.processes),
            ("USERS", homes.users),
            ("VOLUMES", homes.volumes),
            ("ID", LEASE),
        ):
            text = text.replace(name, str(value))
        return text

    found = homes.of(Record(record.lease_id, full(record.runtime_state), record.user, record.place))
    assert type(found) is kind
    assert isinstance(found, HostHome | UserHome | TreeHome)
    assert str(found.directory.path) == full(path)
    assert found.inside == (full(path) if inside == "PATH" else inside)
    assert found.user == record.user


@given(st.none() | st.text(max_size=30) | st.integers() | st.lists(st.text()))
def test_a_place_is_a_path_of_a_tree_or_nothing(value: object) -> None:
    is_path = isinstance(value, str) and value.startswith("/") and "\0" not in value
    parts = value.split("/")[1:] if isinstance(value, str) else []
    is_tree = is_path and len(parts) > 2 and not {"", ".", ".."} & set(parts)
    assert is_place(value) is (value is None or is_tree)


@pytest.mark.parametrize(
    "place", ["", "x", "/", "/a/b", "/a/../b/c", "/a//b/c", "/a/b/c\0", "a/b/c"]
)
def test_no_kind_takes_another_place(homes: Homes, place: str) -> None:
    assert not is_place(place)
    with pytest.raises(ValueError, match="no kind"):
        homes.of(Record(place=place))


def test_a_containers_lease_lives_while_it_is_mounted_and_the_runtime_knows_it(
    homes: Homes, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    home = homes.of(Record(runtime_state=str(state)))
    assert home.is_alive(look(LEASE))
    assert not home.is_alive(look())
    state.rmdir()
    assert not home.is_alive(look(LEASE))
    assert home.is_alive(look(LEASE, is_new=True)), "the runtime's directory comes later"
    assert not home.is_alive(look(is_new=True)), "but nothing is mounted"


def test_a_processs_lease_lives_while_its_lock_is_held(homes: Homes) -> None:
    lock = homes.processes / f"{LEASE}.lock"
    home = homes.of(Record(runtime_state=str(lock)))
    (homes.processes / LEASE).mkdir()
    assert not home.is_alive(look(LEASE)), "there is no lock"
    with lock.open("w") as file:
        assert not home.is_alive(look(LEASE, is_new=True)), "nobody holds it"
        fcntl.flock(file, fcntl.LOCK_EX)
        assert home.is_alive(look(LEASE))
        assert not home.is_alive(look()), "nothing is mounted"
    assert not home.is_alive(look(LEASE))


def test_a_pods_volume_lives_while_it_is_mounted(homes: Homes) -> None:
    """Whatever became of the pod's directory, which the agent does not see."""
    path = homes.volumes / LEASE
    home = homes.of(Record(runtime_state=str(path)))
    assert isinstance(home, VolumeHome)
    assert home.is_alive(look(LEASE))
    path.mkdir()
    assert not home.is_alive(look(is_new=True)), "nothing is mounted"
    with pytest.raises(CredspecError, match="nothing is mounted"):
        home.write({"krb5cc": b"t"}, uid=UID, gid=os.getegid(), mode=0o600)


@pytest.mark.root
def test_mounts_of_all_directories_are_seen_and_wiped(homes: Homes) -> None:
    for number, parent in enumerate((homes.containers, homes.processes, homes.volumes)):
        path = parent / f"{number:032x}"
        path.mkdir()
        c_library.mount(b"credspec", str(path).encode(), b"tmpfs", 0, b"size=64k")
        try:
            (path / "krb5cc").touch()
            assert homes.mounted() == {path.name}
            homes.wipe(path.name)
            assert list(path.iterdir()) == []
        finally:
            c_library.unmount(str(path).encode(), 0)


def test_a_lease_of_a_tree_lives_as_long_as_its_directory(homes: Homes, memory: Path) -> None:
    place = memory / "lease" / "account"
    place.mkdir(parents=True)
    home = homes.of(Record(place=str(place)))
    assert home.is_alive(look())
    home.write({"krb5cc": b"t"}, uid=UID, gid=os.getegid(), mode=0o640)
    assert (place / "krb5cc").stat().st_mode & 0o777 == 0o640
    assert home.holds({"krb5cc"})
    assert not home.holds({"krb5cc", "krb5.conf"})
    for leftover in (".krb5cc.0123456789abcdef", ".credspec-0123456789abcdef"):
        (place / leftover).touch()
    assert home.holds({"krb5cc"})
    assert [path.name for path in place.iterdir()] == ["krb5cc"]
    home.wipe()
    assert not home.holds({"krb5cc"})
    place.rmdir()
    assert not home.is_alive(look(is_new=True))


def test_a_tree_with_a_link_on_the_way_is_not_followed(homes: Homes, memory: Path) -> None:
    (memory / "elsewhere" / "account").mkdir(parents=True)
    (memory / "lease").symlink_to(memory / "elsewhere")
    home = homes.of(Record(place=str(memory / "lease" / "account")))
    assert not home.is_alive(look())
    with pytest.raises(CredspecError, match="lease-directory-missing"):
        home.write({"krb5cc": b"t"}, uid=UID, gid=os.getegid(), mode=0o600)
    assert not any((memory / "elsewhere" / "account").iterdir())


def test_a_tree_on_a_disk_gets_no_ticket(homes: Homes) -> None:
    place = Path(tempfile.mkdtemp(prefix="credspec-test-", dir="/var/tmp"), "lease", "account")
    place.mkdir(parents=True)
    try:
        home = homes.of(Record(place=str(place)))
        with pytest.raises(CredspecError, match="that is no tmpfs"):
            home.write({"krb5cc": b"t"}, uid=UID, gid=os.getegid(), mode=0o600)
        assert list(place.iterdir()) == []
    finally:
        shutil.rmtree(place.parents[1])


def test_a_directory_without_a_mount_gets_no_ticket(homes: Homes) -> None:
    (homes.containers / LEASE).mkdir()
    with pytest.raises(CredspecError, match="nothing is mounted"):
        homes.of(Record()).write({"krb5cc": b"t"}, uid=UID, gid=os.getegid(), mode=0o600)
    assert list((homes.containers / LEASE).iterdir()) == []


@pytest.fixture
def of_users(homes: Homes, memory: Path) -> Homes:
    """Runtime directories of users on a tmpfs."""
    return replace(homes, users=memory)


def test_a_users_container_lives_in_its_runtime_directory(of_users: Homes) -> None:
    state = of_users.users / str(UID) / "state"
    state.mkdir(parents=True)
    home = of_users.of(Record(user=UID, runtime_state=str(state)))
    assert isinstance(home, UserHome)
    assert not home.is_alive(look(LEASE, is_new=True))
    home.directory.path.mkdir(parents=True)
    assert home.is_alive(look())
    home.write({"krb5cc": b"t"}, uid=UID, gid=os.getegid(), mode=0o600)
    assert (home.directory.path / "krb5cc").read_bytes() == b"t"
    state.rmdir()
    assert not home.is_alive(look())
    assert home.is_alive(look(is_new=True))


def test_another_users_directory_on_the_way_is_refused(of_users: Homes) -> None:
    other = UID + 1
    path = of_users.users / str(other) / "credspec" / "leases" / LEASE
    path.mkdir(parents=True)
    home = of_users.of(Record(user=other))
    assert not home.is_alive(look(is_new=True))
    with pytest.raises(CredspecError, match="not the user's own"):
        home.write({"krb5cc": b"t"}, uid=UID, gid=os.getegid(), mode=0o600)


def test_a_user_names_only_what_is_its_own(of_users: Homes) -> None:
    home = of_users.of(Record(user=UID, runtime_state="/run/runc/x"))
    with pytest.raises(NotPermittedError, match="runtime-state-not-permitted"):
        home.checked_state(UID, os.getegid())
    own = of_users.of(Record(user=UID, runtime_state=f"{of_users.users}/{UID}/state"))
    assert own.checked_state(UID, os.getegid()) == f"{of_users.users}/{UID}/state"
    with pytest.raises(NotPermittedError, match="owner-not-permitted"):
        own.checked_state(UID + 1, os.getegid())


def test_a_users_process_lives_while_its_lock_is_held(of_users: Homes) -> None:
    path = of_users.users / str(UID) / "credspec" / "leases" / LEASE
    path.mkdir(parents=True)
    lock = path.with_name(f"{LEASE}.lock")
    home = of_users.of(Record(user=UID, runtime_state=str(lock)))
    assert type(home) is UserProcessHome
    assert home.checked_state(UID, os.getegid()) == str(lock)
    with lock.open("w") as file:
        assert not home.is_alive(look(is_new=True))
        fcntl.flock(file, fcntl.LOCK_EX)
        assert home.is_alive(look())
    assert not home.is_alive(look())


def test_a_lease_of_which_only_the_id_is_known_is_wiped_wherever_it_is(
    homes: Homes, monkeypatch: pytest.MonkeyPatch
) -> None:
    wiped: list[Path] = []
    monkeypatch.setattr(LeaseDirectory, "wipe", lambda self: wiped.append(self.path))
    homes.wipe(LEASE)
    parents = (homes.containers, homes.processes, homes.volumes)
    assert wiped == [parent / LEASE for parent in parents]


def test_the_kinds_exclude_one_another() -> None:
    """Which comes first in the list decides nothing between a container's and a tree's."""
    assert homes_module.KINDS is KINDS
    places = [None, "/t/lease/account"]
    takers = [{kind for kind in KINDS if kind.takes(place)} for place in places]
    assert takers[0].isdisjoint(takers[1])
    assert set().union(*takers) == set(KINDS)


def test_only_files_of_its_own_are_read(homes: Homes, memory: Path) -> None:
    place = memory / "tree/lease1/account"
    place.mkdir(parents=True)
    home = homes.of(Record(place=str(place)))
    files = {"krb5cc": b"ticket", "krb5.conf": b""}
    home.write(files, uid=UID, gid=os.getegid(), mode=0o600)
    assert home.read({*files, "krb5.keytab"}) == files
    others = memory / "others"
    others.write_bytes(b"of somebody else")
    for make in (place.joinpath("krb5cc").symlink_to, place.joinpath("krb5cc").hardlink_to):
        (place / "krb5cc").unlink()
        make(others)
        assert home.read({"krb5cc"}) == {}
    (place / "krb5cc").unlink()
    os.mkfifo(place / "krb5cc")
    assert home.read({"krb5cc"}) == {}
    (place / "krb5.conf").write_bytes(bytes((16 << 20) + 1))
    assert home.read({"krb5.conf"}) == {}
