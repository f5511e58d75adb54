"""Steps on this host: the agent, the container runtime, the Docker gateway."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from credspec.api_client import AgentClient
from credspec.contract.lease import Lease
from credspec.contract.names import RUNTIME
from credspec.contract.ticket_options import TicketRequest
from credspec.doctor.join_steps import JOIN_STEP
from credspec.doctor.step import Finding, Step
from credspec.errors import AgentUnreachableError, CredspecError, NotPermittedError, Problem
from credspec.run.process_lease import (
    HOST_MOUNTS,
    OWN_MOUNTS,
    LeaseDirectoryError,
    in_host_mounts,
)
from credspec.setup.launcher import NAME

if TYPE_CHECKING:
    from credspec.doctor.examination import Examination

_SECONDS: Final = 10.0  # of which /readyz may take most, right after the agent's start


def _agent(examination: Examination) -> Finding:
    client = AgentClient(examination.config.agent_socket, seconds=_SECONDS)
    try:
        client.get("/healthz")
    except NotPermittedError as error:
        # Docker's users need not reach it: the runtime does, as root.
        return Finding(f"not checked: user {os.geteuid()} may not ask it", error.problems)
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
    try:
        client.get("/readyz")
    except CredspecError as error:
        problems += tuple(
            Problem(
                code="agent-not-ready",
                where="agent",
                found=problem.found,
                remedy="what the agent says of itself; the steps on the domain look again",
            )
            for problem in error.problems
        )
    return Finding(f"answers, and holds {len(held)} identities", problems)


def _lease_mount(examination: Examination) -> Finding:
    """Mount a lease's directory as the runtime does, and ask the agent whether it sees it."""
    config = examination.config
    if os.geteuid() != 0:
        return Finding("not checked: only root can mount")
    client = AgentClient(config.agent_socket, seconds=_SECONDS)
    try:
        client.get("/healthz")
    except AgentUnreachableError:
        return Finding("not checked: the agent does not answer")  # the next step says so
    lease = Lease(secrets.token_hex(16), str(config.agent_socket), str(config.run_directory))
    try:
        namespace = _mounted(lease)
    except LeaseDirectoryError as error:
        if error.is_agent_missing:
            raise
        # As in a container, where even root may not mount.
        return Finding("not checked: nothing can be mounted", error.problems)
    try:
        answer = client.get(f"/v1/lease-directories/{lease.lease_id}")
    except CredspecError as error:
        if error.response_status != http.HTTPStatus.NOT_FOUND:
            raise
        return Finding("not checked: the running agent is an older one; restart it")
    finally:
        in_host_mounts(lease.remove_directory, namespace)
    if not answer.get("mounted"):
        raise CredspecError.of(
            "mounts-not-propagated",
            f"what is mounted below {config.leases_directory} does not reach the agent",
            where="mounts of this host",
            expected="shared mounts, as systemd makes them (findmnt -o TARGET,PROPAGATION /)",
            remedy="run `mount --make-rshared /`, then `systemctl restart credspec-agent`; find "
            "out what ran `mount --make-rprivate /`, or set MountFlags= of the agent's unit right",
        )
    return Finding(f"a tmpfs below {config.leases_directory} reaches it")


def _mounted(lease: Lease) -> Path:
    """Mount a lease's directory; return the mount namespace in which that was done."""
    request = TicketRequest("", 0, 0, 0o600, keytab=False)
    try:
        in_host_mounts(lambda: lease.make_directory(request))
    except LeaseDirectoryError as error:
        if not error.is_agent_missing:
            raise
    else:
        return HOST_MOUNTS
    # A lab is in a namespace of its own, and so are its engines.
    in_host_mounts(lambda: lease.make_directory(request), OWN_MOUNTS)
    return OWN_MOUNTS


def _runtime(examination: Examination) -> Finding:
    path = examination.docker_socket
    if not os.path.exists(path):  # noqa: PTH110 - False where this user may not look
        return Finding(f"no Docker here: there is no {path}")
    if refused := _refused(path):
        return refused
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
    if not os.path.exists(examination.docker_socket):  # noqa: PTH110
        return Finding("not needed without Docker")
    path = examination.config.gateway_socket
    if refused := _refused(path):
        return refused
    remedy = "run `credspec setup agent docker` (or `credspec docker-gateway` under your own "
    remedy += "service manager); each user: `credspec setup docker`, `docker context use credspec`"
    info = _ask(path, "/version", "gateway", remedy)
    return Finding(f"answers on {path} for dockerd {info.get('Version')}")


def _refused(path: Path) -> Finding | None:
    """Return what to say if this user may not open a socket that is there."""
    try:
        with socket.socket(socket.AF_UNIX) as stream:
            stream.settimeout(_SECONDS)
            stream.connect(str(path))
    except PermissionError:
        user = os.geteuid()
        problem = Problem(
            code="socket-not-permitted",
            where=str(path),
            found=f"user {user} may not open it",
            remedy="run `credspec check` as root, or as a user of the socket's group (docker)",
        )
        return Finding(f"not checked: user {user} may not open {path}", (problem,))
    except OSError:
        pass  # who asks says so
    return None


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
    JOIN_STEP,
    Step(
        name="lease-mount",
        title="What is mounted for a container reaches the agent",
        run=_lease_mount,
    ),
    Step(name="agent", title="The agent runs", run=_agent),
    Step(name="runtime", title="The runtime is registered with Docker", run=_runtime),
    Step(name="gateway", title="The Docker gateway answers", run=_gateway, needs=("runtime",)),
)
