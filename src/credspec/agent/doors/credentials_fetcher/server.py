"""The service put together: its socket, who may call it, and gRPC inside the agent's event loop."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from credspec.agent.doors.credentials_fetcher.connections import CallerConnections
from credspec.agent.doors.credentials_fetcher.lease_tree import LeaseTree
from credspec.agent.leases.leases import Leases
from credspec.config.host import Config
from credspec.errors import UsageError
from credspec.service.events import Event, emit
from credspec.sockets.listener import listen, share

MOST_BYTES: Final = 4 << 20
"""The longest message taken, in bytes; gRPC's own default."""

_STREAMS_AT_A_TIME: Final = 100
_GRACE_SECONDS: Final = 2.0


def check(config: Config) -> None:
    """Refuse what cannot serve, before anything is started; call it before `serving`.

    Raises:
        UsageError: `grpc-missing`, `lease-tree-missing`, `lease-tree-not-tmpfs`.
        NotPermittedError: `lease-tree-not-trusted`.
    """
    # Processes that a provider starts must not take gRPC's own handlers along.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    for package in ("grpc", "google", "google.protobuf"):
        # Not imported yet: the process is to be made safe before.
        if find_spec(package) is None:
            raise UsageError.of(
                "grpc-missing",
                f"the Python package {package} is not installed",
                where="--grpc-compat",
                remedy="pip install 'credspec[grpc]'",
            )
    LeaseTree(config.fetcher.lease_tree).check()


@asynccontextmanager
async def serving(path: Path, config: Config, leases: Leases) -> AsyncIterator[None]:
    """Serve on the Unix socket `path` while the block runs; leases must be adopted by then.

    Raises:
        UsageError: `agent-running` if somebody listens there.
        CredspecError: `grpc-socket`.
    """
    from credspec.agent.doors.credentials_fetcher import reflection
    from credspec.agent.doors.credentials_fetcher.call_handlers import CallHandlers
    from credspec.agent.doors.credentials_fetcher.service import Service

    service = Service(leases, LeaseTree(config.fetcher.lease_tree), config.fetcher)
    await service.leases.take_over()
    inner = _inner_socket(config)
    connections = CallerConnections(inner)
    calls = CallHandlers(service, connections.served, connections.expect)
    server = _server((calls.handlers(), *reflection.handlers(connections.served)))
    try:
        server.add_insecure_port(f"unix:{inner}")
    except RuntimeError:
        raise UsageError.of("grpc-socket", "gRPC cannot listen there", where=str(inner)) from None
    await server.start()
    try:
        leases.policy.watched.append(lambda policy: share(path, others=bool(policy.grpc_uids)))
        with _listening(path, others=bool(config.fetcher.uids)) as listener:
            async with connections.accepting(listener, service.may_call):
                emit(Event.GRPC_READY, socket=str(path), leases=len(service.leases.ids()))
                yield
    finally:
        await server.stop(_GRACE_SECONDS)
        await service.leases.settled()


def _inner_socket(config: Config) -> Path:
    """Return where gRPC is to listen, in a directory that only root can enter."""
    directory = config.run_directory / "grpc"
    directory.mkdir(mode=0o700, exist_ok=True)
    directory.chmod(0o700)
    for left in directory.iterdir():
        left.unlink()
    return directory / "s"


@contextmanager
def _listening(path: Path, *, others: bool) -> Iterator[socket.socket]:
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True)
        path.parent.chmod(0o755)
    with listen(path, others=others) as listener:
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _server(handlers: Sequence[grpc.GenericRpcHandler]) -> grpc.aio.Server:
    import grpc.aio

    server = grpc.aio.server(
        options=(
            ("grpc.max_receive_message_length", MOST_BYTES),
            ("grpc.max_concurrent_streams", _STREAMS_AT_A_TIME),
            ("grpc.max_metadata_size", 8192),
            ("grpc.so_reuseport", 0),
        )
    )
    server.add_generic_rpc_handlers(handlers)
    return server


if TYPE_CHECKING:
    import grpc
    import grpc.aio
