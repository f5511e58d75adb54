"""What the shim does for a container with a spec: lease, bundle, and the real runtime.

Standard library only: it runs on the path of every container with a spec, and of its deletion.
That is why `_signal` stands here, without the wrapper that costs more than the work, and why JSON,
which only the creation needs, is imported there.
"""

from __future__ import annotations

import _signal
import posix
import sys

from credspec.contract.errors import ShimError
from credspec.contract.host_paths import is_directory, is_there, leases_directory
from credspec.contract.lease import Lease
from credspec.contract.start_wait import StartWait, parent_is_there
from credspec.shim.runtime import Invocation

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself costs milliseconds
    from collections.abc import Sequence


def run_with_lease(
    invocation: Invocation,
    runtime: str,
    arguments: Sequence[str],
    agent_socket: str,
    run_directory: str,
    *,
    wait_seconds: float = 0.0,
) -> int | None:
    """Make the lease, run create or run to its end, and return its status.

    Returns None, with nothing done, if the container carries no spec after all. A container that
    did not come to be keeps no lease. `wait_seconds` is for how long an agent or a domain that is
    not there yet is waited for.

    Raises:
        ShimError: the container must not start; nothing is left.
    """
    from credspec.shim.carriers import DOCKER, PODMAN, Origin, take_ticket_request
    from credspec.shim.image_root import ImageRoot
    from credspec.shim.oci_bundle import add_tickets, read_config, write_config

    config = read_config(invocation.bundle)
    if config is None:
        return None
    lease = Lease(invocation.lease_id(runtime), agent_socket, run_directory)
    origin = Origin.of(invocation)
    request = take_ticket_request(config, origin, is_users=lease.is_users)
    if request is None:
        return None
    state = invocation.state_directory(runtime)
    if is_there(state):
        return _refused_by(runtime, arguments, invocation)
    wait = StartWait(
        wait_seconds,
        lambda line: report(invocation, line, level="warning"),
        is_wanted=parent_is_there(),
    )
    is_engines = origin.engine in {DOCKER, PODMAN}
    with ImageRoot(config, invocation.bundle, is_engines=is_engines) as root:
        fallback = root.reads_fallback()
        answer = lease.take(request, invocation.container, state, wait, name_fallback=fallback)
        root.offer_krb5_conf()
    try:
        add_tickets(config, lease.directory, answer["environment"])
        write_config(invocation.bundle, config)
        if request.tickets == "broker":
            status = _run_with_kdc(invocation, runtime, arguments, lease)
        else:
            status = _run(runtime, arguments)
    except BaseException:
        lease.give_back()
        raise
    if status != 0 or (invocation.command == "run" and not invocation.is_detached):
        lease.give_back()
    return status


def _run_with_kdc(
    invocation: Invocation, runtime: str, arguments: Sequence[str], lease: Lease
) -> int:
    """Create a container, and have the agent serve as KDC in its network before it starts."""
    if invocation.command != "create":
        raise ShimError(
            "broker-run",
            "tickets=broker: the agent serves in the container's network, which is not there "
            "before a `run`; use create and start, as engines do, or tickets=services",
        )
    from credspec.contract.kdc_sockets import serve_kdc

    pid_file = invocation.options.get("--pid-file") or invocation.options.get("--pidfile")
    if not pid_file:
        pid_file = f"{invocation.bundle}/credspec.pid"
        at = arguments.index("create") + 1
        arguments = [*arguments[:at], "--pid-file", pid_file, *arguments[at:]]
    status = _run(runtime, arguments)
    if status != 0:
        return status
    try:
        with open(pid_file, "rb") as file:
            pid = int(file.read())
        serve_kdc(lease.lease_id, lease.agent_socket, f"/proc/{pid}/ns/net")
    except BaseException:
        options = arguments[: arguments.index("create")]
        _run(runtime, [*options, "delete", "--force", invocation.container])
        raise
    return status


def _refused_by(runtime: str, arguments: Sequence[str], invocation: Invocation) -> int:
    """Let the runtime refuse a container whose id is in use; the other's lease stays as it is."""
    status = _run(runtime, arguments)
    if status == 0:
        raise ShimError(
            "container-exists",
            f"container {invocation.container[:80]!r}: there was one of this id, and the runtime "
            "made another all the same, which has no tickets; delete it",
        )
    return status


def delete_with_lease(
    invocation: Invocation,
    runtime: str,
    arguments: Sequence[str],
    agent_socket: str,
    run_directory: str,
) -> int:
    """Delete a container, and give its lease back once it is gone; return the runtime's status."""
    status = _run(runtime, arguments)
    if not is_directory(invocation.state_directory(runtime)):
        Lease(invocation.lease_id(runtime), agent_socket, run_directory).give_back()
    return status


def check_restore(invocation: Invocation, run_directory: str) -> None:
    """Refuse to restore a container that had tickets, or that asks for some.

    Raises:
        ShimError: `checkpoint-refused`; as `take_ticket_request`.
    """
    from credspec.shim.carriers import Origin, take_ticket_request
    from credspec.shim.oci_bundle import has_tickets, read_config

    config = read_config(invocation.bundle)
    if config is None:
        return
    if has_tickets(config, leases_directory(run_directory)) or take_ticket_request(
        config, Origin.of(invocation)
    ):
        raise ShimError(
            "checkpoint-refused",
            "restore: tickets cannot be restored; remove the container and run it again",
        )


def _run(runtime: str, arguments: Sequence[str]) -> int:
    # Python ignores these two signals, and a container must not inherit that.
    pid = posix.posix_spawn(
        runtime, [runtime, *arguments], posix.environ, setsigdef=[_signal.SIGPIPE, _signal.SIGXFSZ]
    )
    passed_on = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGWINCH")
    for number in (getattr(_signal, name) for name in passed_on):
        _signal.signal(number, lambda received, _: posix.kill(pid, received))
    return posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1]) & 0xFF


def report(invocation: Invocation, text: str, *, level: str = "error") -> None:
    """Say why, where the engine looks: in the runtime's log as runc writes it, and on stderr.

    Of the log, engines show the last line of the level ``error`` when a container does not start.
    """
    sys.stderr.write(f"credspec-runtime: {text}\n")
    log = invocation.options.get("--log")
    if not log:
        return
    import time

    from credspec.contract import c_json

    entry = {
        "level": level,
        "msg": f"credspec: {text}",
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    try:
        fd = posix.open(
            log, posix.O_WRONLY | posix.O_APPEND | posix.O_CREAT | posix.O_NOFOLLOW, 0o600
        )
        posix.write(fd, c_json.dumps(entry) + b"\n")
        posix.close(fd)
    except OSError:
        pass  # stderr has it
