"""Podman's hooks: the same as the shim does, without ``--runtime`` (oci-hooks(5)).

``precreate`` reads a container's proposed ``config.json``, takes the lease, and prints the
configuration with tickets. ``poststop`` reads the container's state and gives the lease back.
``createRuntime`` runs where ``precreate`` asks for it.
Standard library only: it runs in the start of every container with a spec.
"""

from __future__ import annotations

import json
import os
import re
import sys

from credspec.contract import c_json
from credspec.contract.errors import ShimError
from credspec.contract.host_paths import leases_directory
from credspec.contract.lease import Lease
from credspec.contract.names import ANNOTATION
from credspec.contract.start_wait import StartWait, parent_is_there
from credspec.shim.carriers import PODMAN, REFUSED_HOOK, Origin, take_ticket_request
from credspec.shim.image_root import ImageRoot
from credspec.shim.oci_bundle import add_tickets, check_members, forbid_checkpoints

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself costs milliseconds
    from typing import Any

_LAST_WORDS = 1000
_CONTAINER_ID = re.compile(r"[0-9a-f]{64}")
# Podman's directory of a container, as long as that exists; its id is nowhere else.
_USERDATA = re.compile(r"(/.*/[a-z0-9]+-containers/([0-9a-f]{64})/userdata)/[^/]+")


def main(*, run_directory: str = "/run/credspec", wait_seconds: float = 0.0) -> None:
    """Act as the hook that the first argument names; `run_directory` is the agent's.

    `wait_seconds` is for how long a container's start waits for an agent or a domain that is not
    there yet.
    """
    stage = sys.argv[1] if len(sys.argv) > 1 else ""
    document = c_json.loads_strictly(sys.stdin.buffer.read())
    if stage == "poststop":
        _release_lease(document, run_directory)
    elif stage == "createRuntime":
        _serve_kdc_at(document, run_directory)
    else:
        json.dump(_with_tickets(document, run_directory, wait_seconds), sys.stdout)


def _with_tickets(
    config: dict[str, Any], run_directory: str, wait_seconds: float
) -> dict[str, Any]:
    try:
        is_users = leases_directory(run_directory) != f"{run_directory}/leases"
        check_members(config)
        found = _state(config)
        if found is None and (config.get("annotations") or {}).get(ANNOTATION):
            raise ShimError(
                "podman-container-unknown",
                "Podman: no directory of the container among its mounts; "
                "use --runtime credspec instead of the hooks",
            )
        state, container = found or ("", "")
        request = take_ticket_request(config, Origin(PODMAN, container), is_users=is_users)
        if request is None:
            return config
        lease = Lease(_lease_id(container), f"{run_directory}/agent.sock", run_directory)
        wait = StartWait(
            wait_seconds,
            lambda line: sys.stderr.write(f"credspec-podman-hook: {line}\n"),
            is_wanted=parent_is_there(),
        )
        with ImageRoot(config, state, is_engines=True) as root:
            fallback = root.reads_fallback()
            answer = lease.take(request, container, state, wait, name_fallback=fallback)
            root.offer_krb5_conf()
        if request.tickets == "broker":
            _serve_kdc(config, lease)
    except ShimError as error:
        return _refused(config, str(error))
    except Exception as error:  # what a hook says here is not shown
        return _refused(config, f"internal error: {error!r} [internal]")
    add_tickets(config, lease.directory, answer["environment"])
    forbid_checkpoints(config)
    # Taken out, so that the shim, if it runs too, leaves the container as it is.
    config["annotations"].pop(ANNOTATION, None)
    return config


def _serve_kdc(config: dict[str, Any], lease: Lease) -> None:
    """Have the agent serve as KDC in the container's network, now or once that is there."""
    from credspec.contract.kdc_sockets import serve_kdc

    namespaces = (config.get("linux") or {}).get("namespaces") or []
    networks = [each.get("path") for each in namespaces if each.get("type") == "network"]
    if networks and not networks[0]:
        # Without a network of Podman's, the runtime makes an empty one, and then runs this.
        hook = {"path": os.path.abspath(sys.argv[0]), "args": [sys.argv[0], "createRuntime"]}
        config.setdefault("hooks", {}).setdefault("createRuntime", []).append(hook)
        return
    try:
        serve_kdc(lease.lease_id, lease.agent_socket, networks[0] if networks else None)
    except BaseException:
        lease.give_back()
        raise


def _serve_kdc_at(state: dict[str, Any], run_directory: str) -> None:
    """Have the agent serve as KDC in the network of a container that the runtime has made."""
    from credspec.contract.kdc_sockets import serve_kdc

    lease = Lease(_lease_id(str(state.get("id"))), f"{run_directory}/agent.sock", run_directory)
    try:
        serve_kdc(lease.lease_id, lease.agent_socket, f"/proc/{int(state['pid'])}/ns/net")
    except ShimError as error:
        lease.give_back()
        sys.exit(f"credspec: {error}")


def _refused(config: dict[str, Any], reason: str) -> dict[str, Any]:
    """Let the container fail with a reason: Podman keeps to itself what a precreate hook says.

    Of a hook that fails, runc shows what it said and crun only its path; both show a path.
    """
    words = " ".join(reason.replace("..", ". .").split())[:_LAST_WORDS]
    hook = {"path": f"{REFUSED_HOOK}{words}"}  # no such program, whatever the words
    config.setdefault("hooks", {}).setdefault("prestart", []).insert(0, hook)
    config.get("annotations", {}).pop(ANNOTATION, None)
    return config


def _release_lease(state: dict[str, Any], run_directory: str) -> None:
    # The annotations are those before precreate: only the id tells which lease it is.
    container = str(state.get("id"))
    if _CONTAINER_ID.fullmatch(container):
        Lease(_lease_id(container), f"{run_directory}/agent.sock", run_directory).give_back()


def _state(config: dict[str, Any]) -> tuple[str, str] | None:
    for mount in config.get("mounts") or []:
        match = _USERDATA.fullmatch(str(mount.get("source", "")))
        # What Podman itself mounts there; a volume may be from anywhere.
        if match and mount.get("destination") in {"/run/.containerenv", "/etc/hostname"}:
            return match[1], match[2]
    return None


def _lease_id(container: str) -> str:
    from _blake2 import blake2s

    return str(blake2s(f"podman {container}".encode(), digest_size=16).hexdigest())
