"""What is done without anybody waiting for it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from credspec.errors import CredspecError
from credspec.service.events import Event, emit


class BackgroundTasks:
    """Keeps tasks that nobody awaits, and reports what goes wrong in them."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, object]) -> None:
        """Let some work be done, which may fail."""
        task = asyncio.get_running_loop().create_task(_done(work))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


async def _done(work: Coroutine[Any, Any, object]) -> None:
    try:
        await work
    except CredspecError:
        pass  # reported where it was raised
    except Exception as error:  # noqa: BLE001 - nobody else would report it
        emit(Event.INTERNAL_ERROR, path="leases", error=type(error).__name__)
