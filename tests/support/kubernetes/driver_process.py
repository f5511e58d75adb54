"""The CSI driver as a process of its own, called as the kubelet calls it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc

from credspec.kubernetes.api.server import ApiServer
from credspec.kubernetes.csi import csi_pb2 as csi
from credspec.kubernetes.csi import registration_pb2 as registration

BIN = Path(sys.executable).parent
_START_SECONDS = 120.0


class DriverProcess:
    """A driver of a kubelet whose directory is a test's; `command` stands in front of its own."""

    def __init__(
        self,
        kubelet: Path,
        server: ApiServer,
        config: Path,
        *,
        command: tuple[str, ...] = (),
        options: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.kubelet = kubelet
        self.pods = kubelet / "pods"
        self.pods.mkdir(parents=True, exist_ok=True)
        self.socket = kubelet / "plugins" / "credspec.dev" / "csi.sock"
        self.registration_socket = kubelet / "plugins_registry" / "credspec.dev-reg.sock"
        self.log = kubelet / "driver.log"
        self._argv = [
            *command,
            str(BIN / "credspec"),
            *("kubernetes", "csi-driver", "--config", str(config), "--node", "node1"),
            *("--kubelet-directory", str(kubelet), "--api-server", server.url),
            *("--ca-file", str(server.ca_file), "--token-file", str(server.token_file)),
            *options,
        ]
        self._environment = dict(os.environ) | dict(environment or {})
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return when the kubelet could call it."""
        before = self.log.read_text().count("csi-ready") if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._argv, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + _START_SECONDS
        while self.log.read_text().count("csi-ready") == before:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(self.log.read_text()[-2000:])
            time.sleep(0.05)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; return the status."""
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(number)
        return process.wait(60)

    def call(self, method: str, request: Any, answer: Any) -> Any:
        """Call a method of the driver, such as ``csi.v1.Node/NodeGetInfo``."""
        return call(self.socket, method, request, answer)

    def publish(self, request: csi.NodePublishVolumeRequest) -> None:
        """Publish a volume; raises `grpc.RpcError`."""
        method = "csi.v1.Node/NodePublishVolume"
        self.call(method, request, csi.NodePublishVolumeResponse)

    def unpublish(self, volume_id: str, target: Path) -> None:
        """Take a volume back; raises `grpc.RpcError`."""
        request = csi.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path=str(target))
        method = "csi.v1.Node/NodeUnpublishVolume"
        self.call(method, request, csi.NodeUnpublishVolumeResponse)

    def plugin(self) -> registration.PluginInfo:
        """Return what the driver tells the kubelet of itself."""
        method = "pluginregistration.Registration/GetInfo"
        request = registration.InfoRequest()
        found = call(self.registration_socket, method, request, registration.PluginInfo)
        assert isinstance(found, registration.PluginInfo)
        return found


def call(socket: Path, method: str, request: Any, answer: Any) -> Any:
    """Call a method by gRPC on a Unix socket."""
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        unary = channel.unary_unary(
            f"/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        return unary(request, timeout=120, wait_for_ready=True)
