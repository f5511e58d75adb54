"""The driver put together: its sockets in the kubelet's directories, served until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from credspec.config.host import Config
from credspec.errors import CredspecError, UsageError
from credspec.kubernetes.api.client import ApiClient
from credspec.kubernetes.api.server import ApiServer
from credspec.kubernetes.csi.agent_leases import AgentLeases
from credspec.kubernetes.csi.calls import NodeCalls, RegistrationCalls
from credspec.kubernetes.csi.metrics import NodeMetrics, serving_metrics
from credspec.kubernetes.csi.object_access import ObjectAccess
from credspec.kubernetes.csi.run_directory import remove_if_empty, remove_when_unused
from credspec.kubernetes.csi.volume_mounts import VolumeMounts
from credspec.kubernetes.csi.volume_records import VolumeRecords
from credspec.kubernetes.csi.volumes import REVIEW_SECONDS, Volumes
from credspec.kubernetes.objects.names import DRIVER
from credspec.service.events import Event, emit
from credspec.sockets.listener import PathTakenError, remove_stale

if TYPE_CHECKING:
    import grpc

KUBELET_DIRECTORY: Final = Path("/var/lib/kubelet")
"""The kubelet's --root-dir, by default."""

_SWEEP_SECONDS: Final = 60.0
_GRACE_SECONDS: Final = 5.0
_MOST_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverSettings:
    """Where the driver is, and whom it asks.

    `node` is the name of this node, `kubelet_directory` the kubelet's --root-dir, which must be at
    the same path for the driver. `review_seconds` is how long the API server's answer about a pod
    that lives is good. `node_run_directory` is another path of the agent's run directory, by which
    it is removed at the end if nothing is in it, None to leave it. `metrics`
    is where ``/metrics`` is served, None for nowhere.
    """

    node: str
    api: ApiServer
    kubelet_directory: Path = KUBELET_DIRECTORY
    review_seconds: float = REVIEW_SECONDS
    node_run_directory: Path | None = None
    metrics: tuple[str, int] | None = None

    @property
    def pods(self) -> Path:
        """The kubelet's directory of all pods."""
        return self.kubelet_directory / "pods"

    @property
    def socket(self) -> Path:
        """Where the kubelet calls the driver."""
        return self.kubelet_directory / "plugins" / DRIVER / "csi.sock"

    @property
    def registration_socket(self) -> Path:
        """Where the kubelet finds new plug-ins, by the sockets that appear."""
        return self.kubelet_directory / "plugins_registry" / f"{DRIVER}-reg.sock"


async def serve(config: Config, settings: DriverSettings, stop: asyncio.Event) -> None:
    """Serve the kubelet until `stop` is set; volumes stay for the next run.

    Raises:
        UsageError: `csi-running` if another driver answers on the socket.
        CredspecError: `csi-socket`, `csi-record`, `kubernetes-ca-file`, `csi-metrics-address`.
    """
    settings.api.tls_context()
    records = VolumeRecords(config.run_directory / "csi")
    records.open()
    api = ApiClient(settings.api)
    volumes = Volumes(
        ObjectAccess(api),
        AgentLeases(config.agent_socket),
        VolumeMounts(config.run_directory, config.agent_socket),
        records,
        review_seconds=settings.review_seconds,
    )
    metrics = NodeMetrics(config.agent_socket, records, lambda: api.questions)
    node = NodeCalls(volumes, settings.pods, settings.node, metrics.answered)
    scraped = (
        contextlib.nullcontext()
        if settings.metrics is None
        else serving_metrics(metrics, settings.metrics)
    )
    try:
        async with (
            scraped,
            _serving(settings.socket, node.handlers()),
            # Last: the kubelet calls as soon as it knows of the driver.
            _serving(settings.registration_socket, RegistrationCalls(settings.socket).handlers()),
        ):
            emit(Event.CSI_READY, socket=str(settings.socket))
            await _sweeping(lambda: volumes.sweep(settings.pods), stop)
    finally:
        await api.close()
        remove_if_empty(settings.socket.parent)
        if settings.node_run_directory is not None:
            await remove_when_unused(config, settings.node_run_directory)


async def _sweeping(sweep: Callable[[], Awaitable[int]], stop: asyncio.Event) -> None:
    """Sweep now and then until `stop` is set."""
    while not stop.is_set():
        try:
            await sweep()
        except Exception as error:  # noqa: BLE001 - nothing may end it
            emit(Event.INTERNAL_ERROR, path="sweep", error=type(error).__name__)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _SWEEP_SECONDS)


@contextlib.asynccontextmanager
async def _serving(path: Path, handlers: Sequence[grpc.GenericRpcHandler]) -> AsyncIterator[None]:
    """Serve on a socket that only root may use, in place of one that a killed driver has left."""
    import grpc.aio

    _make_room(path)
    server = grpc.aio.server(
        options=(("grpc.max_receive_message_length", _MOST_BYTES), ("grpc.so_reuseport", 0))
    )
    server.add_generic_rpc_handlers(tuple(handlers))
    mask = os.umask(0o177)  # nobody else, from the first moment
    try:
        server.add_insecure_port(f"unix:{path}")
    except RuntimeError:
        raise CredspecError.of("csi-socket", "gRPC cannot listen there", where=str(path)) from None
    finally:
        os.umask(mask)
    await server.start()
    try:
        yield
    finally:
        # gRPC removes the socket: so the kubelet knows that the driver is gone.
        await server.stop(_GRACE_SECONDS)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108 - it does not block, and pathlib is taken to


def _make_room(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        remove_stale(path)
    except PathTakenError as error:
        raise UsageError.of("csi-running", str(error), where=str(path)) from None
    except OSError as error:
        raise CredspecError.of(
            "csi-socket",
            error.strerror or str(error),
            where=str(path),
            remedy="give the kubelet's --root-dir with --kubelet-directory",
        ) from None
