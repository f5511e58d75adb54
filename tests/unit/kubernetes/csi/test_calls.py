"""The kubelet's calls: what the driver says of itself, and which status its errors are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from credspec import errors
from credspec.errors import CredspecError, InvalidSpecError, NotPermittedError, UsageError
from credspec.kubernetes.api.client import ApiRefusedError
from credspec.kubernetes.csi import csi_pb2 as csi
from credspec.kubernetes.csi import registration_pb2 as registration
from credspec.kubernetes.csi.call_status import status_name
from credspec.kubernetes.csi.calls import NodeCalls, RegistrationCalls
from credspec.kubernetes.csi.server import _serving
from support.kubernetes.driver_process import call
from support.kubernetes.publish_requests import publish_request, target_in


class ScriptedVolumes:
    """Volumes of which each call ends as a test says; it notes the calls."""

    def __init__(self) -> None:
        self.failure: BaseException | None = None
        self.calls: list[tuple[str, Any]] = []
        self.counted: list[tuple[str, str]] = []

    async def publish(self, request: object) -> None:
        self.calls.append(("publish", request))
        if self.failure is not None:
            raise self.failure

    async def unpublish(self, volume_id: str, target: Path) -> None:
        self.calls.append(("unpublish", (volume_id, target)))
        if self.failure is not None:
            raise self.failure


@asynccontextmanager
async def called(directory: Path, volumes: ScriptedVolumes) -> AsyncIterator[Path]:
    count = volumes.counted.append
    node = NodeCalls(volumes, directory / "pods", "node1", lambda *each: count(each))  # type: ignore[arg-type]
    path = directory / "plugins" / "csi.sock"
    async with _serving(path, node.handlers()):
        yield path


async def ask(path: Path, method: str, request: Any, answer: Any) -> Any:
    return await asyncio.to_thread(call, path, method, request, answer)


async def refused(path: Path, request: csi.NodePublishVolumeRequest) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        await ask(path, "csi.v1.Node/NodePublishVolume", request, csi.NodePublishVolumeResponse)
    found: Any = caught.value
    return found.code().name, found.details()


async def test_what_the_driver_says_of_itself(tmp_path: Path) -> None:
    async with called(tmp_path, ScriptedVolumes()) as path:
        assert path.stat().st_mode & 0o077 == 0
        info = await ask(
            path,
            "csi.v1.Identity/GetPluginInfo",
            csi.GetPluginInfoRequest(),
            csi.GetPluginInfoResponse,
        )
        assert info.name == "credspec.dev"
        assert info.vendor_version
        await ask(path, "csi.v1.Identity/Probe", csi.ProbeRequest(), csi.ProbeResponse)
        found = await ask(
            path,
            "csi.v1.Node/NodeGetCapabilities",
            csi.NodeGetCapabilitiesRequest(),
            csi.NodeGetCapabilitiesResponse,
        )
        kinds = [each.rpc.type for each in found.capabilities]
        assert kinds == [csi.NodeServiceCapability.RPC.VOLUME_MOUNT_GROUP]
        node = await ask(
            path, "csi.v1.Node/NodeGetInfo", csi.NodeGetInfoRequest(), csi.NodeGetInfoResponse
        )
        assert node.node_id == "node1"
    assert not path.exists(), "the kubelet sees that the driver is gone"


async def test_a_volume_is_published_and_taken_back(tmp_path: Path) -> None:
    volumes = ScriptedVolumes()
    pods = tmp_path / "pods"
    async with called(tmp_path, volumes) as path:
        request = publish_request(pods)
        await ask(path, "csi.v1.Node/NodePublishVolume", request, csi.NodePublishVolumeResponse)
        back = csi.NodeUnpublishVolumeRequest(
            volume_id="csi-0123", target_path=str(target_in(pods))
        )
        await ask(path, "csi.v1.Node/NodeUnpublishVolume", back, csi.NodeUnpublishVolumeResponse)
    assert [name for name, _ in volumes.calls] == ["publish", "unpublish"]
    assert volumes.calls[1][1] == ("csi-0123", target_in(pods))
    assert volumes.counted == [("NodePublishVolume", "OK"), ("NodeUnpublishVolume", "OK")]


async def test_refusals_carry_text_and_code(tmp_path: Path) -> None:
    volumes = ScriptedVolumes()
    async with called(tmp_path, volumes) as path:
        request = publish_request(tmp_path / "pods")
        volumes.failure = NotPermittedError.of("csi-use-not-permitted", "no", remedy="bind a Role")
        name, text = await refused(path, request)
        assert (name, text) == ("PERMISSION_DENIED", "no; bind a Role [csi-use-not-permitted]")
        volumes.failure = InvalidSpecError.of("spec-x", "y" * 10_000)
        name, text = await refused(path, request)
        assert name == "FAILED_PRECONDITION"
        assert len(text) <= 2000
        wrong = publish_request(tmp_path / "pods", {"mode": "0644"})
        name, text = await refused(path, wrong)
        assert name == "INVALID_ARGUMENT"
        assert text.endswith("[csi-attribute-invalid]")
    statuses = ("PERMISSION_DENIED", "FAILED_PRECONDITION", "INVALID_ARGUMENT")
    assert volumes.counted == [("NodePublishVolume", each) for each in statuses]


async def test_a_bug_says_only_its_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    volumes = ScriptedVolumes()
    volumes.failure = ValueError("a secret of somebody")
    async with called(tmp_path, volumes) as path:
        request = publish_request(tmp_path / "pods", secrets={"token": "a secret token"})
        name, text = await refused(path, request)
    assert name == "INTERNAL"
    shown = text + "".join(capsys.readouterr())
    assert "secret" not in shown
    assert "ValueError" in shown


def kinds(base: type[CredspecError] = CredspecError) -> list[type[CredspecError]]:
    return [base, *(each for kind in base.__subclasses__() for each in kinds(kind))]


def test_what_passes_by_itself_is_unavailable_and_nothing_else() -> None:
    expected = {
        errors.CredspecError: "INTERNAL",
        errors.UsageError: "INVALID_ARGUMENT",
        errors.InvalidSpecError: "FAILED_PRECONDITION",
        errors.UnreachableError: "UNAVAILABLE",
        errors.NoAnswerError: "UNAVAILABLE",
        errors.NotPermittedError: "PERMISSION_DENIED",
        errors.AgentUnreachableError: "UNAVAILABLE",
        errors.TooManyRequestsError: "UNAVAILABLE",
        errors.QuotaExceededError: "UNAVAILABLE",
        errors.NotFoundError: "NOT_FOUND",
        ApiRefusedError: "INTERNAL",
    }
    for kind, name in expected.items():
        assert status_name(kind.of("x", "y")) == name, kind
        assert getattr(grpc.StatusCode, name)
    # The agent says of any error when to try again.
    for kind in kinds():
        error = kind.of("x", "y")
        error.retry_after = 1
        assert status_name(error) == "UNAVAILABLE"


async def test_the_registration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    endpoint = tmp_path / "csi.sock"
    path = tmp_path / "reg.sock"
    async with _serving(path, RegistrationCalls(endpoint).handlers()):
        name = "pluginregistration.Registration"
        info = await ask(
            path, f"{name}/GetInfo", registration.InfoRequest(), registration.PluginInfo
        )
        assert (info.type, info.name) == ("CSIPlugin", "credspec.dev")
        assert (info.endpoint, list(info.supported_versions)) == (str(endpoint), ["1.0.0"])
        for status in (
            registration.RegistrationStatus(plugin_registered=True),
            registration.RegistrationStatus(error="another has the name"),
        ):
            await ask(
                path,
                f"{name}/NotifyRegistrationStatus",
                status,
                registration.RegistrationStatusResponse,
            )
    shown = "".join(capsys.readouterr())
    assert "csi-registered" in shown
    assert "another has the name" in shown


async def test_a_driver_that_runs_keeps_its_socket(tmp_path: Path) -> None:
    volumes = ScriptedVolumes()
    async with called(tmp_path, volumes) as path:
        with pytest.raises(UsageError, match="csi-running"):
            async with called(tmp_path, volumes):
                pass
        assert path.exists()
