from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from credspec.errors import CredspecError, Problem
from credspec.service.notification import (
    failure_in_status,
    forget_descriptors,
    keep_watchdog_quiet,
    notify,
    store_descriptors,
    watchdog_seconds,
)


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """The service manager's end of the socket."""
    name = str(tmp_path / "notify")
    address = name if request.param == "path" else "@" + name
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address.replace("@", "\0"))
        receiver.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        yield receiver


def test_what_is_said_arrives(manager: socket.socket) -> None:
    assert notify("READY=1", "STATUS=well")
    assert manager.recv(100) == b"READY=1\nSTATUS=well"


def test_descriptors_are_kept_under_a_name(manager: socket.socket) -> None:
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        assert store_descriptors("kdc-1", [kept.fileno()])
        text, [descriptor], _, _ = socket.recv_fds(manager, 100, 2)
        assert text == b"FDSTORE=1\nFDNAME=kdc-1\nFDPOLL=0"
        with socket.socket(fileno=descriptor) as same:
            assert same.getsockname() == kept.getsockname()
    forget_descriptors("kdc-1")
    assert manager.recv(100) == b"FDSTOREREMOVE=1\nFDNAME=kdc-1"


def test_the_status_says_in_one_line_why_it_failed(manager: socket.socket) -> None:
    problems = [Problem(code=code, found="no", remedy="say yes") for code in ("first", "second")]
    with pytest.raises(CredspecError), failure_in_status():
        raise CredspecError(*problems)
    assert manager.recv(200) == b"STATUS=no; say yes [first]; no; say yes [second]"


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/at/all", "@nobody-listens-here"])
def test_nobody_listens(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify("READY=1")


@pytest.mark.parametrize(
    ("microseconds", "pid", "seconds"),
    [
        ("60000000", None, 60.0),
        ("60000000", "1", None),
        ("", None, None),
        ("0", None, None),
        ("x", None, None),
    ],
)
def test_how_often(
    monkeypatch: pytest.MonkeyPatch, microseconds: str, pid: str | None, seconds: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    monkeypatch.setenv("WATCHDOG_PID", pid or str(os.getpid()))
    assert watchdog_seconds() == seconds


async def test_the_watchdog_hears_again_and_again(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    task = asyncio.create_task(keep_watchdog_quiet())
    for _ in range(3):
        assert await asyncio.to_thread(manager.recv, 100) == b"WATCHDOG=1"
    task.cancel()


async def test_nobody_asks_for_the_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    await keep_watchdog_quiet()
