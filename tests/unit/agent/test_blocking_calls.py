"""Calls that may block: in order, with deadlines, and one user's never those of others."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import weakref
from functools import partial
from pathlib import Path

import pytest

from credspec.agent.blocking_calls import BlockingCalls
from credspec.errors import CredspecError


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """A file whose opening waits until somebody opens it for writing."""
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


def let_go(fifo: Path) -> None:
    os.close(os.open(fifo, os.O_WRONLY))


async def test_what_a_call_returns_and_raises() -> None:
    calls: BlockingCalls[str] = BlockingCalls()
    assert await calls.run("a", lambda: 3, 5, "x") == 3
    with pytest.raises(ZeroDivisionError):
        await calls.run("a", lambda: 1 // 0, 5, "x")
    with pytest.raises(TimeoutError, match="of its own"):
        await calls.run("a", lambda: raise_it(TimeoutError("of its own")), 5, "x")
    with pytest.raises(RuntimeError, match="SystemExit"):
        await calls.run("a", lambda: raise_it(SystemExit()), 5, "x")


def raise_it(error: BaseException) -> None:
    raise error


async def test_a_call_that_never_ends_costs_its_deadline_and_no_other_key(fifo: Path) -> None:
    calls: BlockingCalls[str] = BlockingCalls()
    with pytest.raises(CredspecError) as caught:
        await calls.run("stuck", fifo.read_bytes, 0.05, "files of user 7")
    assert caught.value.code == "call-timeout"
    assert "files of user 7" in str(caught.value)
    assert await calls.run("other", lambda: 1, 5, "x") == 1
    let_go(fifo)


async def test_calls_of_a_key_run_in_order_and_those_given_up_do_not_run(fifo: Path) -> None:
    calls: BlockingCalls[str] = BlockingCalls()
    ran: list[str] = []
    first = calls.submit("a", fifo.read_bytes)
    given_up = asyncio.create_task(calls.run("a", lambda: ran.append("given up"), 60, "x"))
    with pytest.raises(CredspecError, match="call-timeout"):
        await calls.run("a", lambda: ran.append("too late"), 0.05, "x")
    given_up.cancel()
    second = calls.submit("a", lambda: ran.append("wiped"))
    await asyncio.sleep(0.01)
    assert ran == []
    let_go(fifo)
    assert await first == b""
    await second
    assert ran == ["wiped"]


async def test_few_calls_of_a_key_wait(fifo: Path) -> None:
    calls: BlockingCalls[str] = BlockingCalls(most_waiting=2)
    first = calls.submit("a", fifo.read_bytes)
    while calls._workers["a"].calls:
        await asyncio.sleep(0.01)
    waiting = [calls.submit("a", lambda: None) for _ in range(2)]
    with pytest.raises(CredspecError, match="calls-waiting"):
        calls.submit("a", lambda: None)
    let_go(fifo)
    await asyncio.gather(first, *waiting)


async def test_one_thread_serves_a_key_and_ends_when_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("credspec.agent.blocking_calls._IDLE_SECONDS", 0.05)
    calls: BlockingCalls[str] = BlockingCalls()
    threads = {await calls.run("a", threading.get_ident, 5, "x") for _ in range(20)}
    assert len(threads) == 1
    while calls._workers["a"].is_running:
        await asyncio.sleep(0.01)
    assert await calls.run("a", lambda: 2, 5, "x") == 2


async def test_without_threads_it_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fails)
    calls: BlockingCalls[str] = BlockingCalls()
    with pytest.raises(CredspecError, match="can't start new thread"):
        await calls.run("a", lambda: None, 5, "files")
    monkeypatch.undo()
    assert await calls.run("a", lambda: 1, 5, "files") == 1


async def test_nothing_of_a_call_that_failed_stays_with_its_error() -> None:
    """Without a collection: a spec that was refused may hold a password."""

    class Document:
        pass

    def refuse(document: Document) -> None:
        raise ValueError(type(document).__name__)

    document = Document()
    left = weakref.ref(document)
    gc.disable()
    try:
        with pytest.raises(ValueError, match="Document"):
            await BlockingCalls[int]().run(1, partial(refuse, document), 60, "here")
        del document
        end = time.monotonic() + 60
        while left() is not None and time.monotonic() < end:
            await asyncio.sleep(0.01)
        assert left() is None
    finally:
        gc.enable()
