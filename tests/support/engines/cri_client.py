"""What the kubelet asks a container runtime, by the CRI (runtime.v1 of cri-api)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import grpc

Fields = Mapping[int, Any]
_NODE = 2  # NamespaceMode: the network is the host's
_SECONDS = 120
_NOT_YET = "server is not initialized yet"


class CriClient:
    """A connection to a CRI socket; all pods have the host's network, which needs no plug-in."""

    def __init__(self, socket: Path) -> None:
        # A lab's proxy variables must not send a Unix socket elsewhere.
        self._channel = grpc.insecure_channel(f"unix://{socket}", [("grpc.enable_http_proxy", 0)])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def run_pod(self, name: str, annotations: Mapping[str, str], *, handler: str) -> Pod:
        """Run a pod's sandbox; `handler` is what a RuntimeClass names."""
        config: Fields = {
            1: {1: name, 2: f"{name}-uid", 3: "default"},
            3: "",
            7: [{1: key, 2: value} for key, value in annotations.items()],
            8: {2: {1: {1: _NODE}}},
        }
        answer = self._call("RunPodSandbox", {1: config, 2: handler})
        return Pod(self, str(answer[1][0], "ascii"), config)

    def _call(self, method: str, request: Fields) -> dict[int, list[Any]]:
        call = self._channel.unary_unary(f"/runtime.v1.RuntimeService/{method}")
        end = time.monotonic() + _SECONDS
        while True:
            try:
                return unpack(call(pack(request), timeout=_SECONDS))
            except grpc.RpcError as error:
                # containerd answers elsewhere before its CRI has loaded what runs.
                if _NOT_YET not in error.details() or time.monotonic() > end:
                    raise
            time.sleep(0.1)


class Pod:
    """A pod's sandbox, to which containers are added."""

    def __init__(self, client: CriClient, identifier: str, config: Fields) -> None:
        self.client, self.identifier, self._config = client, identifier, config

    def start(
        self,
        name: str,
        image: str,
        command: Sequence[str],
        *,
        annotations: Mapping[str, str] | None = None,
        user: int | None = None,
    ) -> str:
        """Create and start a container; return its id."""
        security: dict[int, Any] = {3: {1: _NODE}}
        if user is not None:
            security[5] = {1: user}
        config: Fields = {
            1: {1: name},
            2: {1: image},
            3: list(command),
            10: [{1: key, 2: value} for key, value in (annotations or {}).items()],
            15: {2: security},
        }
        request = {1: self.identifier, 2: config, 3: self._config}
        container = str(self.client._call("CreateContainer", request)[1][0], "ascii")
        self.client._call("StartContainer", {1: container})
        return container

    def exec(self, container: str, *command: str) -> tuple[int, str]:
        """Run a command in a container; return its status and all it printed."""
        request = {1: container, 2: list(command), 3: 60}
        answer = self.client._call("ExecSync", request)
        shown = b"".join([*answer.get(1, []), *answer.get(2, [])])
        return answer.get(3, [0])[0], shown.decode()

    def stop_container(self, container: str) -> None:
        self.client._call("StopContainer", {1: container, 2: 0})

    def remove_container(self, container: str) -> None:
        self.client._call("RemoveContainer", {1: container})

    def remove(self) -> None:
        """Stop and remove the sandbox with all its containers."""
        self.client._call("StopPodSandbox", {1: self.identifier})
        self.client._call("RemovePodSandbox", {1: self.identifier})


def pack(fields: Fields) -> bytes:
    """Encode a message of Protocol Buffers: texts, numbers, messages, and lists of these."""
    message = bytearray()
    for number, value in fields.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, int):
                message += _varint(number << 3) + _varint(item)
            else:
                data = item.encode() if isinstance(item, str) else pack(item)
                message += _varint(number << 3 | 2) + _varint(len(data)) + data
    return bytes(message)


def unpack(data: bytes) -> dict[int, list[Any]]:
    """Decode a message: by field, the numbers and bytes in it."""
    fields: dict[int, list[Any]] = {}
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        value: Any
        value, at = _read_varint(data, at)
        if tag & 7 == 2:
            value, at = data[at : at + value], at + value
        else:
            assert tag & 7 == 0, f"wire type {tag & 7}"
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
