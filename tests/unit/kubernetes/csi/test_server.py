"""The driver as a whole, from its start to its stop, before a simulated kubelet."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from credspec.config.host import Config
from credspec.kubernetes.api.server import ApiServer
from credspec.kubernetes.csi import registration_pb2 as registration
from credspec.kubernetes.csi import server
from credspec.kubernetes.csi.server import DriverSettings, serve
from support.agent.scripted_leases import directory_in_memory
from support.kubernetes.driver_process import call
from support.servers.certificate_authority import Authority


@pytest.fixture
def settings(tmp_path: Path, authority: Authority) -> Iterator[DriverSettings]:
    (tmp_path / "token").write_text("t")
    api = ApiServer("https://127.0.0.1:1", authority.certificate, tmp_path / "token")
    # A socket's path has at most 107 bytes.
    with directory_in_memory() as directory:
        yield DriverSettings(node="node1", api=api, kubelet_directory=directory)


@asynccontextmanager
async def running(settings: DriverSettings) -> AsyncIterator[registration.PluginInfo]:
    """Run a driver, once it answers as the kubelet asks plug-ins, until the block ends."""
    stop = asyncio.Event()
    config = Config(run_directory=settings.kubelet_directory)
    task = asyncio.create_task(serve(config, settings, stop))
    info = None
    while info is None and not task.done():
        try:
            info = await asyncio.to_thread(
                call,
                settings.registration_socket,
                "pluginregistration.Registration/GetInfo",
                registration.InfoRequest(),
                registration.PluginInfo,
            )
        except grpc.RpcError:
            await asyncio.sleep(0.05)
    assert info is not None
    yield info
    stop.set()
    await task


async def test_the_socket_of_a_killed_driver_is_replaced(settings: DriverSettings) -> None:
    settings.pods.mkdir(parents=True)
    for path in (settings.socket, settings.registration_socket):
        path.parent.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
    async with running(settings) as info:
        assert info.endpoint == str(settings.socket)
    assert not settings.socket.exists()
    assert not settings.registration_socket.exists()


async def test_on_a_new_node_it_makes_directories_that_others_cannot_enter(
    settings: DriverSettings,
) -> None:
    async with running(settings):
        records = settings.kubelet_directory / "csi"
        for path in (settings.socket.parent, settings.registration_socket.parent, records):
            assert path.stat().st_mode & 0o007 == 0, path
    assert not settings.socket.parent.exists()


async def test_it_pauses_between_two_sweeps() -> None:
    stop, count = asyncio.Event(), 0

    async def sweep() -> int:
        nonlocal count
        count += 1
        await asyncio.sleep(0)
        return 0

    sweeping = asyncio.create_task(server._sweeping(sweep, stop))
    for _ in range(50):
        await asyncio.sleep(0)
    assert count == 1
    stop.set()
    async with asyncio.timeout(60):
        await sweeping


async def test_a_sweep_that_fails_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_SWEEP_SECONDS", 0.0)
    stop, left = asyncio.Event(), 3

    async def sweep() -> int:
        nonlocal left
        left -= 1
        if not left:
            stop.set()
        raise ValueError

    async with asyncio.timeout(60):
        await server._sweeping(sweep, stop)
    assert left == 0
