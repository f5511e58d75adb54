"""Caches that programs have filled with service tickets until the lease's tmpfs was full, for real.

The new ticket takes the place of what has grown; what the container itself has put there stays.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import krb5
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from credspec.agent.leases.directory import LeaseDirectory
from credspec.errors import CredspecError
from credspec.lab.domain import Lab
from support.agent.agent_process import AgentProcess

PAGE = os.sysconf("SC_PAGESIZE")
PAGES, INODES = 24, 10
LIFE = 40
"""The lifetime of tickets here, in seconds; a refresh comes within half of it."""

NAMES = ("krb5cc", "krb5cc_a", "krb5cc_b", "krb5.conf", "krb5.keytab")


@contextmanager
def tmpfs(path: Path, options: str) -> Iterator[Path]:
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "lease", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.fixture
def lease(lab: Lab, tmp_path: Path) -> Iterator[Path]:
    """A lease's tmpfs that is small, in the tests' own mount namespace."""
    del lab
    with tmpfs(tmp_path / "lease", f"size={PAGES * PAGE},nr_inodes={INODES}") as path:
        yield path


def emptied(lease: Path) -> None:
    for path in lease.iterdir():
        path.unlink()


def put(path: Path, size: int) -> None:
    """Write as much of that size as there is room for."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        for _ in range(-(-size // PAGE)):
            file.write(b"o" * PAGE)


def pages(sizes: dict[str, int]) -> int:
    return sum(-(-size // PAGE) for size in sizes.values())


SIZES = st.integers(1, PAGES * PAGE)
NEW = st.integers(1, 3 * PAGE)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    old=st.dictionaries(st.sampled_from(NAMES), SIZES),
    new=st.dictionaries(st.sampled_from(NAMES), NEW, min_size=1),
    others=st.lists(st.integers(1, 6 * PAGE), max_size=INODES),
    held_open=st.sets(st.sampled_from(NAMES)),
)
def test_what_fits_in_place_of_the_old_files_is_written(
    lease: Path, old: dict[str, int], new: dict[str, int], others: list[int], held_open: set[str]
) -> None:
    emptied(lease)
    for number, size in enumerate(others):
        put(lease / f"other{number}", size)
    for name, size in old.items():
        put(lease / name, size)
    there = {path.name: path.stat().st_size for path in lease.iterdir()}
    kept = {name: size for name, size in there.items() if name not in new}
    # What a program holds open stays until it is closed: its blocks, too, where it was replaced
    # before the space came to an end with another file.
    held = {name: there[name] for name in held_open & there.keys() & new.keys()}
    fits = pages(kept) + pages(new) + (pages(held) if len(new) > 1 else 0) <= PAGES
    # The root directory takes one, too, and a new file has a name of its own first.
    fits &= len(kept) + len(new) + 1 + len(held) <= INODES
    fits &= len(there) + 1 < INODES or bool(there.keys() & new.keys())
    with ExitStack() as stack:
        for name in held_open & there.keys():
            stack.enter_context((lease / name).open("rb"))
        contents = {name: name.encode() * size for name, size in new.items()}
        contents = {name: content[: new[name]] for name, content in contents.items()}
        try:
            LeaseDirectory(lease).write(contents, uid=0, gid=0)
        except CredspecError as error:
            assert not fits, (there, new)
            assert error.code == "lease-directory-full"
            return
        assert {name: (lease / name).read_bytes() for name in new} == contents
        left = {path.name: path.stat().st_size for path in lease.iterdir()}
        assert {name: left[name] for name in kept} == kept
        assert left.keys() == kept.keys() | new.keys()


def test_without_use_nothing_is_given_up(lease: Path) -> None:
    """A container that filled its directory keeps the ticket that it has."""
    (lease / "krb5cc").write_bytes(b"old")
    put(lease / "filler", 2 * PAGES * PAGE)
    with pytest.raises(CredspecError, match=r"other files take \d+ KiB") as caught:
        LeaseDirectory(lease).write({"krb5cc": b"n" * 2 * PAGE}, uid=0, gid=0)
    assert caught.value.code == "lease-directory-full"
    assert (lease / "krb5cc").read_bytes() == b"old"


@pytest.mark.parametrize("kind", ["link", "hard link", "fifo", "of another user"])
def test_what_is_no_cache_of_ours_is_not_emptied(lease: Path, tmp_path: Path, kind: str) -> None:
    kept = (lease if kind == "hard link" else tmp_path) / "kept"
    kept.write_bytes(b"kept")
    cache = lease / "krb5cc"
    if kind == "link":
        cache.symlink_to(kept)
    elif kind == "hard link":
        os.chown(kept, 1001, 1001)
        cache.hardlink_to(kept)
    elif kind == "fifo":
        os.mkfifo(cache)
    else:
        cache.write_bytes(b"theirs")
        os.chown(cache, 1001, 1001)
    put(lease / "krb5cc_a", PAGES * PAGE)
    files = {"krb5cc": b"n" * 10, "krb5cc_a": b"n" * 10}
    LeaseDirectory(lease).write(files, uid=1000, gid=1000)
    assert {name: (lease / name).read_bytes() for name in files} == files
    assert kept.read_bytes() == b"kept"


def grow(cache: Path) -> None:
    """Put tickets into a cache, as programs do by libkrb5, until there is no room."""
    context = krb5.init_context()
    opened = krb5.cc_resolve(context, f"FILE:{cache}".encode())
    [ticket, *_] = opened
    with suppress(krb5.Krb5Error):
        while True:
            krb5.cc_store_cred(context, opened, ticket)


class Container:
    """A lease of a small tmpfs, and what programs do in it."""

    def __init__(self, agent: AgentProcess) -> None:
        self.agent = agent
        agent.mount(1)
        self.directory = agent.lease_directory(1)
        subprocess.run(["mount", "-o", "remount,size=64k", str(self.directory)], check=True)
        agent.put(1)
        self.cache = self.directory / "krb5cc"

    def use_services(self) -> None:
        """Log on to more servers than there is room for."""
        end = time.monotonic() + 60
        # A refresh may come in between.
        while os.statvfs(self.directory).f_bavail > 0:
            assert time.monotonic() < end
            grow(self.cache)

    def end_of_ticket(self) -> float:
        cache = krb5.cc_resolve(krb5.init_context(), f"FILE:{self.cache}".encode())
        with suppress(krb5.Krb5Error):  # it was being replaced
            for credentials in cache:
                return float(credentials.times.endtime)
        return 0.0

    def said(self, event: str) -> int:
        return self.agent.log.read_text().count(event)


@pytest.fixture
def container(lab: Lab, tmp_path: Path) -> Iterator[Container]:
    conf = tmp_path / "short.conf"
    conf.write_text(f"[libdefaults]\n ticket_lifetime = {LIFE}s\n")
    agent = AgentProcess(lab, tmp_path)
    try:
        agent.start(KRB5_CONFIG=f"{conf}:{lab.krb5_conf}")
        yield Container(agent)
    finally:
        agent.close()


def waited(condition: Callable[[], bool], container: Container) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, container.agent.log.read_text()[-3000:]
        time.sleep(0.2)


def test_a_program_that_talks_to_many_servers_keeps_its_ticket(container: Container) -> None:
    for _ in range(2):
        before = container.end_of_ticket()
        container.use_services()
        waited(lambda before=before: container.end_of_ticket() > before, container)  # type: ignore[misc]
        assert container.cache.stat().st_size < 2 * PAGE
    assert container.said("lease-not-renewed") == 0


def test_a_directory_that_the_container_filled_is_tried_again_soon(container: Container) -> None:
    before = container.end_of_ticket()
    # Else what is replaced makes room for what replaces it.
    (container.directory / "krb5.conf").unlink()
    put(container.directory / "filler", 1 << 20)
    waited(lambda: container.said("lease-not-renewed") > 0, container)
    assert container.said("lease-directory-full") > 0
    assert container.end_of_ticket() == before, "it has the ticket that it had"
    (container.directory / "filler").unlink()
    waited(lambda: container.said("lease-renewed-late") > 0, container)
    assert container.end_of_ticket() > before
