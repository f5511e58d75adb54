"""What is removed from a real directory, as the kernel tells it, and what leases end with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from credspec.agent.leases.removed_directories import follow_removals
from credspec.contract import c_library
from support.agent.scripted_leases import ScriptedLeases, directory_in_memory

SECONDS = 30.0  # to fail, not to measure
MANY = 3000


@asynccontextmanager
async def following(directory: Path) -> AsyncIterator[asyncio.Queue[str]]:
    names: asyncio.Queue[str] = asyncio.Queue()
    task = asyncio.create_task(follow_removals(directory, names.put_nowait))
    await asyncio.sleep(0)
    yield names
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_names_of_what_is_removed_and_of_nothing_else(tmp_path: Path) -> None:
    async with following(tmp_path) as names:
        for name in ("a", "b", "x" * 255, "\udcff"):
            (tmp_path / name).mkdir()
        (tmp_path / "a/inside").write_text("")
        (tmp_path / "a/inside").unlink()
        (tmp_path / "file").write_text("")
        for name in ("b", "x" * 255, "\udcff", "a"):
            (tmp_path / name).rmdir()
        (tmp_path / "file").unlink()
        async with asyncio.timeout(SECONDS):
            found = [await names.get() for _ in range(5)]
    assert found == ["b", "x" * 255, "\udcff", "a", "file"]


async def test_more_than_one_look_can_take(tmp_path: Path) -> None:
    async with following(tmp_path) as names:
        wanted = [f"{number:032x}" for number in range(MANY)]
        for name in wanted:
            (tmp_path / name).mkdir()
            (tmp_path / name).rmdir()
        async with asyncio.timeout(SECONDS):
            assert [await names.get() for _ in range(MANY)] == wanted


async def test_it_ends_with_the_directory(tmp_path: Path) -> None:
    directory = tmp_path / "leases"
    directory.mkdir()
    task = asyncio.create_task(follow_removals(directory, print))
    await asyncio.sleep(0)
    directory.rmdir()
    async with asyncio.timeout(SECONDS):
        await task
    with pytest.raises(FileNotFoundError):
        await follow_removals(directory, print)


@pytest.fixture
def directory() -> Iterator[Path]:
    with directory_in_memory() as found:
        yield found
        for path in (found / "leases").glob("*"):
            with suppress(OSError):
                c_library.unmount(bytes(path), 0)


async def container(bench: ScriptedLeases, number: int) -> Path:
    """Give a container of the host's a lease; return the directory of that."""
    directory = bench.directory / "leases" / f"{number:032x}"
    directory.mkdir()
    c_library.mount(b"test", bytes(directory), b"tmpfs", 0, b"size=1m")
    await bench.leases.make(bench.request(number, place=None, runtime_state=str(bench.directory)))
    return directory


@asynccontextmanager
async def watched(directory: Path) -> AsyncIterator[ScriptedLeases]:
    bench = ScriptedLeases(directory)
    task = asyncio.create_task(bench.leases.watch())
    await asyncio.sleep(0)
    yield bench
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await bench.close()


def remove(directory: Path) -> None:
    c_library.unmount(bytes(directory), 0)
    directory.rmdir()


async def until_ended(bench: ScriptedLeases, number: int) -> None:
    async with asyncio.timeout(SECONDS):
        while [line["decision"] for line in bench.audited()].count("released") < number:
            await asyncio.sleep(0.01)


@pytest.mark.root  # mounts a tmpfs
async def test_a_lease_ends_with_its_directory_simulated(directory: Path) -> None:
    async with watched(directory) as bench:
        first, second = await container(bench, 1), await container(bench, 2)
        # Neither another's directory nor a name that is no lease's matters.
        (directory / "leases" / ("f" * 32)).mkdir()
        (directory / "leases" / ("f" * 32)).rmdir()
        (directory / "leases/..a").mkdir()
        (directory / "leases/..a").rmdir()
        remove(first)
        await until_ended(bench, 1)
        assert [record.lease_id for record in bench.leases.all()] == [second.name]
        assert [path.stem for path in (directory / "journal").iterdir()] == [second.name]
        last = bench.audited()[-1]
        assert (last["decision"], last["lease"]) == ("released", first.name)
        assert (second / "krb5cc").exists()


@pytest.mark.root  # mounts a tmpfs
async def test_a_container_made_again_of_the_same_id_keeps_its_lease_simulated(
    directory: Path,
) -> None:
    async with watched(directory) as bench:
        made = await container(bench, 1)
        async with bench.leases._locks.hold(made.name):
            remove(made)
            for _ in range(10):
                await asyncio.sleep(0)
            assert len(bench.leases._background.tasks) == 1, "the agent has heard of it"
            made.mkdir()
        await asyncio.gather(*bench.leases._background.tasks)
        assert [record.lease_id for record in bench.leases.all()] == [made.name]


@pytest.mark.root  # mounts a tmpfs
async def test_leases_of_other_places_have_no_part_in_it_simulated(directory: Path) -> None:
    async with watched(directory) as bench:
        await bench.leases.make(bench.request(1))
        (directory / "leases" / f"{1:032x}").mkdir()
        (directory / "leases" / f"{1:032x}").rmdir()
        last = await container(bench, 2)
        remove(last)
        await until_ended(bench, 1)
        assert [record.lease_id for record in bench.leases.all()] == [f"{1:032x}"]


async def test_without_a_watch_it_says_so_and_ends_simulated(
    directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bench = ScriptedLeases(directory)
    (directory / "leases").rmdir()
    async with asyncio.timeout(SECONDS):
        await bench.leases.watch()
    await bench.close()
    assert "leases-not-checked" in capfd.readouterr().err
