"""The kubelet's calls: CSI's Identity and Node services, and the driver's registration.

The driver registers itself: node-driver-registrar, the sidecar that others use, would be one more
image on each node, of another release and with a process of its own, for two calls without state.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from credspec import __version__
from credspec.errors import CredspecError, internal_error
from credspec.kubernetes.csi import csi_pb2 as csi
from credspec.kubernetes.csi import registration_pb2 as registration
from credspec.kubernetes.csi.call_status import status_name, status_of
from credspec.kubernetes.csi.volume_request import valid_target, valid_volume_id, volume_request
from credspec.kubernetes.csi.volumes import Volumes
from credspec.kubernetes.objects.names import DRIVER
from credspec.printable import printable
from credspec.service.events import Event, emit

if TYPE_CHECKING:
    import grpc
    import grpc.aio

_VERSIONS: Final = ("1.0.0",)
_MOUNT_GROUP: Final = csi.NodeServiceCapability.RPC.VOLUME_MOUNT_GROUP


class NodeCalls:
    """What the kubelet asks of the driver of this node; `pods` is its directory of all pods.

    `count` is called with the name of each call of the Node service and its gRPC status.
    """

    def __init__(
        self, volumes: Volumes, pods: Path, node: str, count: Callable[[str, str], None]
    ) -> None:
        self._volumes = volumes
        self._count = count
        self._pods = pods
        self._node = node

    async def plugin_info(self, _: csi.GetPluginInfoRequest) -> csi.GetPluginInfoResponse:
        """Say who answers."""
        return csi.GetPluginInfoResponse(name=DRIVER, vendor_version=__version__)

    async def plugin_capabilities(
        self, _: csi.GetPluginCapabilitiesRequest
    ) -> csi.GetPluginCapabilitiesResponse:
        """Say that there is no controller: the volumes are all ephemeral."""
        return csi.GetPluginCapabilitiesResponse()

    async def probe(self, _: csi.ProbeRequest) -> csi.ProbeResponse:
        """Answer, which means ready."""
        return csi.ProbeResponse()

    async def capabilities(
        self, _: csi.NodeGetCapabilitiesRequest
    ) -> csi.NodeGetCapabilitiesResponse:
        """Say that a pod's fsGroup is wanted with its volume."""
        rpc = csi.NodeServiceCapability.RPC(type=_MOUNT_GROUP)
        return csi.NodeGetCapabilitiesResponse(capabilities=[csi.NodeServiceCapability(rpc=rpc)])

    async def info(self, _: csi.NodeGetInfoRequest) -> csi.NodeGetInfoResponse:
        """Say which node this is."""
        return csi.NodeGetInfoResponse(node_id=self._node)

    async def publish(self, request: csi.NodePublishVolumeRequest) -> csi.NodePublishVolumeResponse:
        """Give a pod its volume; see `Volumes.publish`."""
        await self._volumes.publish(volume_request(request, self._pods))
        return csi.NodePublishVolumeResponse()

    async def unpublish(
        self, request: csi.NodeUnpublishVolumeRequest
    ) -> csi.NodeUnpublishVolumeResponse:
        """Take a volume back; see `Volumes.unpublish`."""
        volume_id = valid_volume_id(request.volume_id)
        await self._volumes.unpublish(volume_id, valid_target(request.target_path, self._pods))
        return csi.NodeUnpublishVolumeResponse()

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """Return what serves both services."""
        return [
            _service(
                "csi.v1.Identity",
                {
                    "GetPluginInfo": (csi.GetPluginInfoRequest, self.plugin_info),
                    "GetPluginCapabilities": (
                        csi.GetPluginCapabilitiesRequest,
                        self.plugin_capabilities,
                    ),
                    "Probe": (csi.ProbeRequest, self.probe),
                },
            ),
            _service(
                "csi.v1.Node",
                {
                    "NodePublishVolume": (csi.NodePublishVolumeRequest, self.publish),
                    "NodeUnpublishVolume": (csi.NodeUnpublishVolumeRequest, self.unpublish),
                    "NodeGetCapabilities": (csi.NodeGetCapabilitiesRequest, self.capabilities),
                    "NodeGetInfo": (csi.NodeGetInfoRequest, self.info),
                },
                self._count,
            ),
        ]


class RegistrationCalls:
    """What the kubelet asks of a plug-in; `endpoint` is the driver's socket for the kubelet."""

    def __init__(self, endpoint: Path) -> None:
        self._endpoint = endpoint

    async def info(self, _: registration.InfoRequest) -> registration.PluginInfo:
        """Say what kind of plug-in this is, and where it is called."""
        return registration.PluginInfo(
            type="CSIPlugin",
            name=DRIVER,
            endpoint=str(self._endpoint),
            supported_versions=_VERSIONS,
        )

    async def registered(
        self, status: registration.RegistrationStatus
    ) -> registration.RegistrationStatusResponse:
        """Log what became of it; the kubelet tries again by itself."""
        if status.plugin_registered:
            emit(Event.CSI_REGISTERED, driver=DRIVER)
        else:
            emit(Event.CSI_NOT_REGISTERED, driver=DRIVER, error=printable(status.error[:1000]))
        return registration.RegistrationStatusResponse()

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """Return what serves the registration."""
        return [
            _service(
                "pluginregistration.Registration",
                {
                    "GetInfo": (registration.InfoRequest, self.info),
                    "NotifyRegistrationStatus": (
                        registration.RegistrationStatus,
                        self.registered,
                    ),
                },
            )
        ]


def _service(
    name: str,
    methods: dict[str, tuple[type[Any], Callable[[Any], Awaitable[Any]]]],
    count: Callable[[str, str], None] = lambda *_: None,
) -> grpc.GenericRpcHandler:
    import grpc

    return grpc.method_handlers_generic_handler(
        name,
        {
            method: grpc.unary_unary_rpc_method_handler(
                _answering(method, call, count),
                request_deserializer=kind.FromString,
                response_serializer=lambda answer: answer.SerializeToString(),
            )
            for method, (kind, call) in methods.items()
        },
    )


def _answering(
    method: str, call: Callable[[Any], Awaitable[Any]], count: Callable[[str, str], None]
) -> Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]:
    """Return a call that answers errors as CSI has them. No request is logged: it has tokens."""

    async def answer(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            answered = await call(request)
        except CredspecError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - only its kind: its text may hold anything
            emit(Event.INTERNAL_ERROR, path=method, error=type(error).__name__)
            failure = internal_error(error, method)
        else:
            count(method, "OK")
            return answered
        count(method, status_name(failure))
        emit(Event.VOLUME_FAILED, method=method, error=str(failure))
        await context.abort(*status_of(failure))
        raise AssertionError("abort raises")

    return answer
