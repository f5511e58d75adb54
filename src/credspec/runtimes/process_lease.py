"""A lease for a plain process: the same identity as in a container, without one."""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from credspec.agent.client import AgentClient
from credspec.agent.config import Config
from credspec.agent.lease_environment import MOUNT_POINT
from credspec.errors import CredspecError
from credspec.runtimes.container_lease import Lease, lease_request
from credspec.runtimes.shim import ShimError
from credspec.runtimes.ticket_options import Wish

_CODE: Final = re.compile(r"(.*) \[([a-z0-9-]+)\]", re.DOTALL)
_PASSED_ON: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_SHOWN_NAME: Final = 40
_CLONE_NEWNS: Final = 0x00020000


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessUser:
    """Whom a program runs as: numbers, and the variables that tell it so."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    environment: Mapping[str, str]


@contextmanager
def process_lease(config: Config, wish: Wish, program: str) -> Iterator[tuple[dict[str, str], int]]:
    """Hold a lease while the block runs; yields the variables for the program, and a lock.

    The lock, a file descriptor, tells the agent who lives: the program should inherit it.
    `program` is what is shown of it.

    Raises:
        CredspecError: as the agent answers; `agent-unreachable`, `mount`, `user-directory`.
    """
    lease = Lease(
        secrets.token_hex(16),
        str(config.agent_socket),
        str(config.run_directory),
        name=config.process_leases_directory.name,
    )
    lock_path = f"{lease.directory}.lock"
    shown = "".join(c if c.isprintable() else "?" for c in Path(program).name[:_SHOWN_NAME])
    name = f"{shown}[{os.getpid()}]"
    _in_host_mounts(lambda: lease.make_directory(wish))
    try:
        # For reading only: the program has it, and a file to fill the host's memory with otherwise.
        flags = os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = os.open(lock_path, flags, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            client = AgentClient(config.agent_socket)
            body = lease_request(wish, name, lock_path)
            answer = client.request("PUT", f"/v1/leases/{lease.lease_id}", body)
            found = answer["environment"].items()
            yield {n: v.replace(MOUNT_POINT, lease.directory) for n, v in found}, lock
        finally:
            os.close(lock)
            with suppress(OSError):
                Path(lock_path).unlink()
    finally:
        lease.release()
        with suppress(CredspecError):
            _in_host_mounts(lease.remove_directory)


def run_process(
    config: Config, wish: Wish, command: Sequence[str], user: ProcessUser | None = None
) -> int:
    """Run a program with a lease to its end, and return its exit status; signals reach it.

    An end by a signal is 128 and the signal's number. A ``KRB5_CONFIG`` that is set already stays.

    Raises:
        CredspecError: as `process_lease`; `program-not-started`.
    """
    process: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, _: object) -> None:
        if process is None:
            sys.exit(128 + number)  # the lease is given back on the way out
        process.send_signal(number)

    for number in _PASSED_ON:
        signal.signal(number, pass_on)
    with process_lease(config, wish, command[0]) as (variables, lock):
        environment = dict(os.environ) | dict(user.environment if user else {})
        if "KRB5_CONFIG" in environment:
            variables.pop("KRB5_CONFIG", None)
        try:
            process = subprocess.Popen(
                list(command),
                env=environment | variables,
                pass_fds=(lock,),
                user=user.uid if user else None,
                group=user.gid if user else None,
                extra_groups=user.groups if user else None,
            )
        except (OSError, ValueError) as error:
            raise CredspecError.of(
                "program-not-started",
                getattr(error, "strerror", None) or str(error),
                where=command[0][:200],
            ) from None
        status = process.wait()
        return status if status >= 0 else 128 - status


def _in_host_mounts(call: Callable[[], None]) -> None:
    """Call in the host's mount namespace, from which mounts reach the agent and this process.

    A service may have a namespace of its own, out of which no mount comes.
    """
    hosts = Path("/proc/1/ns/mnt")
    if os.geteuid() != 0 or not _is_another(hosts):
        failure = _failure_of(call)
    else:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            text = _failure_of(lambda: _enter(hosts)) or _failure_of(call)
            os.write(writer, text.encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as answer:
            failure = answer.read().decode()
        os.waitpid(child, 0)
    if failure:
        match = _CODE.fullmatch(failure)
        text, code = (match[1], match[2]) if match else (failure, "lease-directory")
        raise CredspecError.of(code, text)


def _is_another(namespace: Path) -> bool:
    """Return whether a mount namespace is another than ours, and open to us."""
    try:
        return namespace.stat().st_ino != Path("/proc/self/ns/mnt").stat().st_ino
    except OSError:
        return False


def _failure_of(call: Callable[[], None]) -> str:
    try:
        call()
    except (ShimError, OSError) as error:
        return str(error)
    return ""


def _enter(namespace: Path) -> None:
    fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, _CLONE_NEWNS) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise ShimError(
            f"the host's mount namespace: {reason}; in a service, start it with ExecStart=+ "
            "and --user [mount]"
        )
