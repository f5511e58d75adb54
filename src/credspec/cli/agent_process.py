"""The agent's process, from its two options on: without click, which it would keep for ever."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from credspec.errors import CredspecError, NotPermittedError

if TYPE_CHECKING:
    from credspec.agent.leases.leases import Leases
    from credspec.config.host import Config


def run(config_path: Path | None, grpc_socket: Path | None) -> None:
    """Run the agent until a signal, and end the process.

    `grpc_socket` is where credentials-fetcher's interface is served, None for not at all.

    Raises:
        CredspecError: as `load_config`, `prepare_process` and `serve`, with `agent-needs-root`.
    """
    from credspec.agent.service_sockets import refuse_waiting_callers
    from credspec.service.notification import failure_in_status

    with failure_in_status():
        try:
            _run(config_path, grpc_socket)
        except CredspecError as error:
            refuse_waiting_callers(error)
            raise
    # Threads may still wait for a domain controller; nobody wants what they bring.
    os._exit(0)


def _run(config_path: Path | None, grpc_socket: Path | None) -> None:
    from credspec.service.process_safety import overwrite_freed_memory

    # This may start the program over, so what takes long to load comes after it.
    overwrite_freed_memory()
    # What is imported stays: looking for garbage in it only takes time.
    gc.disable()
    import asyncio

    from credspec.config.host import load_config

    config = load_config(config_path)
    from credspec.agent.daemon import prepare_process, serve
    from credspec.agent.loop_watch import watched_loop
    from credspec.service.events import Event, emit, set_log_format

    gc.enable()
    other_doors = [] if grpc_socket is None else [compatible_service(grpc_socket, config)]
    try:
        is_locked = prepare_process(config)
    except PermissionError as error:
        raise NotPermittedError.of(
            "agent-needs-root",
            error.strerror or "not permitted",
            where=str(error.filename or config.run_directory),
            remedy="run the agent as root, or as a service: credspec setup agent",
        ) from None
    set_log_format(config.log_format)
    if not is_locked:
        emit(Event.PROCESS_NOT_HARDENED, what="memory may be swapped: RLIMIT_MEMLOCK is limited")
    with asyncio.Runner(loop_factory=watched_loop) as runner:
        runner.run(serve(config, *other_doors, load=lambda: load_config(config_path)))


def compatible_service(
    path: Path, config: Config
) -> Callable[[Leases], AbstractAsyncContextManager[None]]:
    """Return what serves credentials-fetcher's interface on a socket.

    Raises:
        CredspecError: as `credspec.agent.doors.credentials_fetcher.server.check`.
    """
    from credspec.agent.doors.credentials_fetcher import server

    server.check(config)
    return lambda leases: server.serving(path.absolute(), config, leases)
