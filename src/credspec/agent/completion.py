"""Work that goes on to its end, even if the task that awaits it is cancelled meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from credspec.errors import CredspecError

_T = TypeVar("_T")


async def completed(work: Coroutine[Any, Any, _T]) -> _T:
    """Return what some work returns, or raise what it raises, once it has ended.

    A cancellation does not reach the work; it is raised when that has ended.
    """
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
            cancelled = True
        except BaseException:  # noqa: BLE001 - raised below, or a cancellation is
            break
    if cancelled:
        with suppress(CredspecError):
            task.result()
        raise asyncio.CancelledError
    return task.result()
