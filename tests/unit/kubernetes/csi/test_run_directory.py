"""What the driver removes of the node at its end, and what it leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from credspec.config.host import Config
from credspec.kubernetes.csi.run_directory import remove_if_empty, remove_when_unused

NAMES = ("csi", "grpc", "journal", "leases", "process-leases", "volumes")


class Clock:
    """A clock that only its sleepers move."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """As agent and driver leave it."""
    run = tmp_path / "run"
    for name in NAMES:
        (run / name).mkdir(parents=True)
    (run / "krb5.conf").write_text("[realms]\n")
    return Config(run_directory=run)


async def removed(config: Config, clock: Clock | None = None) -> bool:
    clock = clock or Clock()
    return await remove_when_unused(
        config, config.run_directory, monotonic=clock, sleep=clock.sleep
    )


async def test_it_goes_with_what_is_made_again(config: Config) -> None:
    assert await removed(config)
    assert not config.run_directory.exists()
    assert not await removed(config)


@pytest.mark.parametrize("name", [*(f"{name}/something" for name in NAMES), "unknown", "gmsa.sock"])
async def test_nothing_goes_while_something_is_in_it(config: Config, name: str) -> None:
    (config.run_directory / name).touch()
    before = sorted(config.run_directory.rglob("*"))
    assert not await removed(config)
    assert sorted(config.run_directory.rglob("*")) == before


async def test_a_link_in_it_leads_nowhere(config: Config, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (config.run_directory / "link").symlink_to(other)
    assert not await removed(config)
    assert other.is_dir()


async def test_an_agent_that_ends_later_is_waited_for(config: Config) -> None:
    config.agent_socket.touch()
    clock = Clock()

    async def sleep(seconds: float) -> None:
        await Clock.sleep(clock, seconds)
        if clock.now > 2:
            config.agent_socket.unlink(missing_ok=True)

    assert await remove_when_unused(config, config.run_directory, monotonic=clock, sleep=sleep)


async def test_nothing_goes_while_the_agent_runs_on(config: Config) -> None:
    config.agent_socket.touch()
    clock = Clock()
    assert not await removed(config, clock)
    assert clock.now >= 10
    assert (config.run_directory / "krb5.conf").exists()


def test_an_empty_directory_goes_and_another_stays(tmp_path: Path) -> None:
    empty, full = tmp_path / "empty", tmp_path / "full"
    empty.mkdir()
    full.mkdir()
    (full / "csi.sock").touch()
    for each in (empty, full, tmp_path / "missing"):
        remove_if_empty(each)
    assert [each.name for each in tmp_path.iterdir()] == ["full"]
