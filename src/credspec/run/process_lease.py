"""A lease for a plain process: the same identity as in a container, without one."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from credspec.api_client import AgentClient
from credspec.config.host import Config
from credspec.contract.errors import ShimError
from credspec.contract.kdc_sockets import serve_kdc
from credspec.contract.lease import Lease, check_answer, lease_request
from credspec.contract.names import MOUNT_POINT
from credspec.contract.service_names import BROKER
from credspec.contract.start_wait import StartWait, has_just_booted
from credspec.contract.ticket_options import TicketRequest
from credspec.errors import AgentNotPermittedError, AgentUnreachableError, CredspecError
from credspec.printable import printable
from credspec.run.supervised_program import ProcessUser, held_signals, run_program

_T = TypeVar("_T")
HOST_MOUNTS: Final = Path("/proc/1/ns/mnt")
"""The mount namespace of the host's first process."""
OWN_MOUNTS: Final = Path("/proc/self/ns/mnt")

_SHOWN_NAME: Final = 40
_ENDED_EARLY: Final = '["mount", "the process in the host\'s mount namespace ended early", false]'
_CLONE_NEWNS: Final = 0x00020000


class LeaseDirectoryError(CredspecError):
    """The directory of a lease cannot be made or removed.

    `is_agent_missing` says that the agent's own directory, which it makes when it starts, is the
    reason.
    """

    is_agent_missing: bool = False


@contextmanager
def process_lease(
    config: Config,
    request: TicketRequest,
    program: str,
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    *,
    wait_seconds: float = 0.0,
) -> Iterator[tuple[dict[str, str], int]]:
    """Hold a lease while the block runs; yields the variables for the program, and a lock.

    The lock, a file descriptor, tells the agent who lives: the program should inherit it.
    `program` is what is shown of it. `waiting` surrounds the wait for the agent's answer.
    `wait_seconds` is for how long an agent or a domain that is not there yet is waited for.

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
    shown = printable(Path(program).name[:_SHOWN_NAME])
    name = f"{shown}[{os.getpid()}]"
    start = _Start(wait_seconds, waiting)
    start.run(lambda: in_host_mounts(lambda: lease.make_directory(request)))
    try:
        # For reading only: the program has it, and a file to fill the host's memory with otherwise.
        flags = os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = os.open(lock_path, flags, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            client = AgentClient(config.agent_socket)
            # The agent's host has a libkrb5 that reads it: Python 3.11 is newer than krb5 1.18.
            body = lease_request(request, name, lock_path, name_fallback=True)

            def ask() -> Any:
                with waiting():
                    return client.request("PUT", f"/v1/leases/{lease.lease_id}", body)

            answer = start.run(ask)
            try:
                check_answer(answer, request.tickets)
                if request.tickets == BROKER:
                    # At a port of its own of the loopback that the program sees.
                    serve_kdc(lease.lease_id, str(config.agent_socket), None)
            except ShimError as error:
                raise CredspecError.of(error.code, error.text) from None
            found = answer["environment"].items()
            yield {n: v.replace(MOUNT_POINT, lease.directory) for n, v in found}, lock
        finally:
            os.close(lock)
            with suppress(OSError):
                Path(lock_path).unlink()
    finally:
        lease.release()
        with suppress(CredspecError):
            in_host_mounts(lease.remove_directory)


class _Start:
    """A program's start, which may wait; the line that says so is on standard error."""

    def __init__(self, seconds: float, waiting: Callable[[], AbstractContextManager[None]]) -> None:
        def sleep(pause: float) -> None:
            with waiting():
                time.sleep(pause)

        self._wait = StartWait(
            seconds,
            lambda line: click.echo(f"credspec: {line}", err=True),
            retry_after=_retry_after,
            sleep=sleep,
        )

    def run(self, attempt: Callable[[], _T]) -> _T:
        """Call until it succeeds, or raise its error with how long was waited."""
        try:
            return self._wait.run(attempt)
        except CredspecError as error:
            if not self._wait.waited:
                raise
            first, *others = error.problems
            waited = f"waited for {self._wait.waited:.0f} s"
            remedy = f"{first.remedy}; {waited}" if first.remedy else waited
            failure = type(error)(first._replace(remedy=remedy), *others)
        raise failure


def _retry_after(error: Exception) -> float | None:
    if not isinstance(error, CredspecError):
        return None
    if isinstance(error, AgentUnreachableError):
        return 0.0
    if isinstance(error, LeaseDirectoryError) and error.is_agent_missing:
        return 0.0
    if isinstance(error, AgentNotPermittedError) and has_just_booted():
        return 0.0
    return error.retry_after


def run_process(
    config: Config,
    request: TicketRequest,
    command: Sequence[str],
    user: ProcessUser | None = None,
    *,
    wait_seconds: float = 0.0,
) -> int:
    """Run a program with a lease to its end, and return its exit status.

    `wait_seconds` is for how long an agent or a domain that is not there yet is waited for.

    An end by a signal is 128 and the signal's number. A ``KRB5_CONFIG`` that is set already stays;
    ``KRB5CCNAME`` and ``KRB5_KTNAME`` do not, since the caller's session may have its own tickets.

    Signals reach the program from its first moment to its last. While there is none yet, one that
    ends a process ends this one, and nothing is left.

    Raises:
        CredspecError: as `process_lease`; `program-not-started`.
    """
    with (
        held_signals() as held,
        process_lease(
            config, request, command[0], held.interruptible, wait_seconds=wait_seconds
        ) as (
            variables,
            lock,
        ),
    ):
        environment = dict(os.environ) | dict(user.environment if user else {})
        if "KRB5_CONFIG" in environment:
            variables.pop("KRB5_CONFIG", None)
        return run_program(command, environment | variables, held, pass_fds=(lock,), user=user)


def in_host_mounts(call: Callable[[], None], hosts: Path = HOST_MOUNTS) -> None:
    """Call in the host's mount namespace, from which mounts reach the agent and this process.

    A service may have a namespace of its own, out of which no mount comes.

    Raises:
        LeaseDirectoryError: with the code of what the call raised, `lease-directory` for an
            `OSError`.
    """
    if os.geteuid() != 0 or not _is_another(hosts):
        failure = _failure_of(call)
    else:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            found = _failure_of(lambda: _enter(hosts)) or _failure_of(call)
            os.write(writer, json.dumps(found).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as answer:
            failure = json.loads(answer.read() or _ENDED_EARLY)
        os.waitpid(child, 0)
    if failure:
        code, text, is_agent_missing = failure
        error = LeaseDirectoryError.of(code, text)
        error.is_agent_missing = is_agent_missing
        raise error


def _is_another(namespace: Path) -> bool:
    """Return whether a mount namespace is another than ours, and open to us."""
    try:
        return namespace.stat().st_ino != OWN_MOUNTS.stat().st_ino
    except OSError:
        return False


def _failure_of(call: Callable[[], None]) -> tuple[str, str, bool] | None:
    """Call, and return code, text and `is_agent_missing` of what it raised, if anything."""
    try:
        call()
    except ShimError as error:
        return error.code, error.text, error.is_agent_missing
    except OSError as error:
        return "lease-directory", str(error), False
    return None


def _enter(namespace: Path) -> None:
    fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, _CLONE_NEWNS) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise ShimError(
            "mount",
            f"the host's mount namespace: {reason}; in a service, start it with ExecStart=+ "
            "and --user",
        )
