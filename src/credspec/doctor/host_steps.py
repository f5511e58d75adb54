"""Steps on this host: the agent, the container runtime, the Docker gateway."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from credspec.agent.client import AgentClient
from credspec.doctor.step import Finding, Step
from credspec.errors import AgentUnreachableError, CredspecError, Problem
from credspec.runtimes.docker_gateway.create_request import RUNTIME
from credspec.runtimes.shim_launcher import NAME

if TYPE_CHECKING:
    from credspec.doctor.examination import Examination

_SECONDS: Final = 5.0


def _agent(examination: Examination) -> Finding:
    client = AgentClient(examination.config.agent_socket, seconds=_SECONDS)
    client.get("/healthz")
    held = client.get("/v1/identities")["identities"]
    problems = tuple(
        Problem(
            code="identity-not-renewed",
            where=f"identity {identity['account']}@{identity['domain']}",
            found=str(identity["last_error"]),
            remedy="the agent tries again; credspec status shows for how long the ticket lasts",
        )
        for identity in held
        if identity["last_error"]
    )
    return Finding(f"answers, and holds {len(held)} identities", problems)


def _runtime(examination: Examination) -> Finding:
    path = examination.docker_socket
    if not path.exists():
        return Finding(f"no Docker here: there is no {path}")
    info = _ask(path, "/info", "dockerd", "start it with `systemctl start docker`")
    runtime = (info.get("Runtimes") or {}).get(RUNTIME)
    if not isinstance(runtime, dict):
        raise CredspecError.of(
            "runtime-not-registered",
            f"dockerd does not know the runtime {RUNTIME}",
            where="dockerd",
            remedy="run `credspec setup docker`, then `systemctl reload docker` (a container "
            "without a spec: error 1722 on Windows)",
        )
    launcher = Path(str(runtime.get("path")))
    if launcher.is_absolute() and not launcher.is_file():
        raise CredspecError.of(
            "runtime-missing",
            f"the runtime {RUNTIME} is {launcher}, which does not exist",
            where="dockerd",
            expected=f"the {NAME} that `credspec setup docker` writes",
            remedy="run `credspec setup docker` again",
        )
    return Finding(f"dockerd {info.get('ServerVersion')} knows the runtime {RUNTIME}: {launcher}")


def _gateway(examination: Examination) -> Finding:
    if not examination.docker_socket.exists():
        return Finding("not needed without Docker")
    path = examination.config.gateway_socket
    remedy = "run `credspec docker-gateway` as a service, and `docker context use credspec`"
    info = _ask(path, "/version", "gateway", remedy)
    return Finding(f"answers on {path} for dockerd {info.get('Version')}")


def _ask(path: Path, resource: str, where: str, remedy: str) -> dict[str, Any]:
    """Ask a Docker API on a Unix socket.

    Raises:
        AgentUnreachableError: `dockerd-unreachable`, `gateway-unreachable`.
    """
    connection = http.client.HTTPConnection("docker", timeout=_SECONDS)
    try:
        with socket.socket(socket.AF_UNIX) as stream:
            stream.settimeout(_SECONDS)
            stream.connect(str(path))
            connection.sock = stream
            connection.request("GET", resource)
            response = connection.getresponse()
            document = json.loads(response.read())
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise AgentUnreachableError.of(
            f"{where}-unreachable",
            f"{path} does not answer ({error})",
            where=where,
            remedy=remedy,
        ) from None
    if response.status >= http.client.BAD_REQUEST or not isinstance(document, dict):
        raise AgentUnreachableError.of(
            f"{where}-unreachable",
            f"{path} answers with {response.status}",
            where=where,
            remedy=remedy,
        )
    return document


HOST_STEPS: Final = (
    Step(name="agent", title="The agent runs", run=_agent),
    Step(name="runtime", title="The runtime is registered with Docker", run=_runtime),
    Step(name="gateway", title="The Docker gateway answers", run=_gateway, needs=("runtime",)),
)
