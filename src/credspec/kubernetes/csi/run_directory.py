"""At the driver's end: a run directory that nothing is in any more is removed from the node.

Agent and driver end together with their pod, at an upgrade as at an uninstall. Only the latter is
not followed by new ones, which nobody can tell; and new ones make the directory again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from credspec.config.host import Config

_SECONDS: Final = 10.0
_PAUSE: Final = 0.1
_FILES: Final = frozenset({"krb5.conf"})
"""What an agent leaves and makes again: no secret, and nothing of a lease."""


async def remove_when_unused(
    config: Config,
    on_node: Path,
    *,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> bool:
    """Remove the run directory once the agent has ended, if no lease is left; return whether.

    `on_node` is a path of the run directory at which it can be removed: in a container, it is
    mounted at its own. What is not known is left as it is, and so is all of it while the agent
    runs on.
    """
    end = monotonic() + _SECONDS
    while config.agent_socket.exists():
        if monotonic() >= end:
            return False
        await sleep(_PAUSE)
    return await asyncio.to_thread(_remove, config.run_directory, on_node)


def _remove(directory: Path, on_node: Path) -> bool:
    try:
        entries = list(directory.iterdir())
        # Looked at by the path at which volumes are mounted.
        directories = [path for path in entries if path.is_dir() and not path.is_symlink()]
        files = [path for path in entries if path not in directories]
        if any(path.name not in _FILES for path in files):
            return False
        if any(True for each in directories for _ in each.iterdir()):
            return False
        for path in files:
            path.unlink()
        for path in directories:
            path.rmdir()
        on_node.rmdir()
    except OSError:
        # Somebody uses it again.
        return False
    return True


def remove_if_empty(directory: Path) -> None:
    """Remove a directory that nothing is in; one that cannot be removed stays."""
    with contextlib.suppress(OSError):
        directory.rmdir()
