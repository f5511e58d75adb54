"""What the shim does for a container with a spec: tmpfs, agent, bundle, and the real runtime.

Standard library only: it runs in the start and the deletion of every container with a spec.
That is why `_signal` and `_socket` stand here, without the wrappers that cost more than the work,
and why JSON, which only the creation needs, is imported there.
"""

from __future__ import annotations

import _signal
import _socket
import os
import sys

from credspec.runtimes import c_library
from credspec.runtimes.selinux_label import mount_option, set_label
from credspec.runtimes.shim import LEASES, Invocation, ShimError, leases_directory
from credspec.runtimes.start_wait import (
    EndedBySignals,
    NotYetError,
    StartWait,
    abandoned,
    has_just_booted,
    parent_is_there,
    with_time,
)

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself costs milliseconds
    from collections.abc import Sequence
    from typing import Any

    from credspec.runtimes.ticket_options import Wish

LEASE_MIB = 16
"""The size of a lease's tmpfs: a limit, of which only what is in it takes memory.

Programs keep the tickets of services in it, of 4 to 12 KiB in large domains: a thousand fit. A
replay cache takes 20 bytes for each logon that was accepted within five minutes.
"""

_TMPFS_OPTIONS = f"size={LEASE_MIB}m,nr_inodes=256"
_REPLAY_CACHE = "rcache"
_NO_SWAP = "noswap"  # tmpfs(5), Linux 6.4 and newer; not in a user namespace
_AGENT_SECONDS = 60.0  # longer than the agent's own deadline, so that its reason arrives
_RELEASE_SECONDS = 10.0  # the agent finds out on its own, too
_ENOENT, _EACCES, _EINVAL, _EPIPE = 2, 13, 22, 32
_ECONNRESET, _ECONNREFUSED = 104, 111
# No agent, none yet, or one that goes just now.
_NO_AGENT = frozenset({_ENOENT, _EPIPE, _ECONNRESET, _ECONNREFUSED})
_LONG_BYTES = 8 if sys.maxsize > 2**32 else 4
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MNT_DETACH = 2, 4, 8, 2
_START_AGENT = "start it with `systemctl start credspec-agent` or `credspec agent`"


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
    from credspec.runtimes.carriers import DOCKER, PODMAN, Origin, take_wish
    from credspec.runtimes.image_root import ImageRoot
    from credspec.runtimes.oci_bundle import add_tickets, read_config, write_config

    config = read_config(invocation.bundle)
    if config is None:
        return None
    lease = Lease(invocation.lease_id(runtime), agent_socket, run_directory)
    origin = Origin.of(invocation)
    wish = take_wish(config, origin, is_users=lease.is_users)
    if wish is None:
        return None
    state = invocation.state_directory(runtime)
    if os.path.lexists(state):
        return _refused_by(runtime, arguments, invocation)
    wait = StartWait(
        wait_seconds,
        lambda line: report(invocation, line, level="warning"),
        is_wanted=parent_is_there(),
    )
    is_engines = origin.engine in {DOCKER, PODMAN}
    with ImageRoot(config, invocation.bundle, is_engines=is_engines) as root:
        fallback = root.reads_fallback()
        answer = lease.take(wish, invocation.container, state, wait, name_fallback=fallback)
        root.offer_krb5_conf()
    try:
        add_tickets(config, lease.directory, answer["environment"])
        write_config(invocation.bundle, config)
        status = _run(runtime, arguments)
    except BaseException:
        lease.give_back()
        raise
    if status != 0 or (invocation.command == "run" and not invocation.is_detached):
        lease.give_back()
    return status


def _refused_by(runtime: str, arguments: Sequence[str], invocation: Invocation) -> int:
    """Let the runtime refuse a container whose id is in use; the other's lease stays as it is."""
    status = _run(runtime, arguments)
    if status == 0:
        raise ShimError(
            f"container {invocation.container[:80]!r}: there was one of this id, and the runtime "
            "made another all the same, which has no tickets; delete it [container-exists]"
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
    if not os.path.isdir(invocation.state_directory(runtime)):
        Lease(invocation.lease_id(runtime), agent_socket, run_directory).give_back()
    return status


def check_restore(invocation: Invocation, run_directory: str) -> None:
    """Refuse to restore a container that had tickets, or that asks for some.

    Raises:
        ShimError: `checkpoint-refused`; as `take_wish`.
    """
    from credspec.runtimes.carriers import Origin, take_wish
    from credspec.runtimes.oci_bundle import has_tickets, read_config

    config = read_config(invocation.bundle)
    if config is None:
        return
    if has_tickets(config, leases_directory(run_directory)) or take_wish(
        config, Origin.of(invocation)
    ):
        raise ShimError(
            "restore: tickets cannot be restored; remove the container and run it again "
            "[checkpoint-refused]"
        )


class Lease:
    """A container's lease as the shim holds it: the directory on the host, the agent's record.

    `name` is that of the directory in the agent's run directory.
    """

    def __init__(
        self, lease_id: str, agent_socket: str, run_directory: str, *, name: str = LEASES
    ) -> None:
        self.lease_id = lease_id
        self.agent_socket = agent_socket
        self.leases_directory = leases_directory(run_directory, name)
        self.is_users = self.leases_directory != f"{run_directory}/{name}"
        self.directory = f"{self.leases_directory}/{lease_id}"

    def take(
        self,
        wish: Wish,
        container: str,
        runtime_state: str,
        wait: StartWait | None = None,
        *,
        name_fallback: bool,
    ) -> dict[str, Any]:
        """Make the directory and have it filled; on failure nothing is left.

        An agent or a domain that is not there yet is waited for as `wait` says, by default not at
        all. `name_fallback` tells whether the container's libkrb5 reads ``fallback`` (krb5 1.18).
        Returns the agent's answer, of which ``environment`` are the container's variables.

        Raises:
            ShimError: also `start-abandoned`, `start-interrupted`.
        """
        wait = wait or StartWait(0, lambda _: None)
        body = lease_request(wish, container, runtime_state, name_fallback=name_fallback)
        made = -1

        def attempt() -> dict[str, Any]:
            nonlocal made
            if made < 0:
                self.make_directory(wish)
                # As long as it is open, no other file system has its number.
                made = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            elif not self._is_directory(made):
                raise abandoned(wait.waited)
            return _ask_agent(self.agent_socket, "PUT", f"/v1/leases/{self.lease_id}", body)

        with EndedBySignals():
            try:
                return wait.run(attempt)
            except BaseException as error:
                # The container may have been deleted meanwhile, and another made of the same id.
                if made < 0 or self._is_directory(made):
                    self.give_back()
                if isinstance(error, ShimError) and "; waited for " not in str(error):
                    raise ShimError(with_time(str(error), wait.waited)) from None
                raise
            finally:
                if made >= 0:
                    os.close(made)

    def _is_directory(self, fd: int) -> bool:
        """Return whether an open directory is still the lease's."""
        try:
            return os.path.samestat(os.fstat(fd), os.lstat(self.directory))
        except OSError:
            return False

    def make_directory(self, wish: Wish) -> None:
        """Make the directory that the agent is to fill."""
        if self.is_users:
            _make_users_directory(self.leases_directory, self.directory, wish.directory_mode)
            set_label(self.directory, wish.label)
        else:
            _mount_tmpfs(self.directory, wish)
        if wish.keytab:
            try:
                _make_replay_cache(f"{self.directory}/{_REPLAY_CACHE}")
            except ShimError:
                self.remove_directory()
                raise

    def give_back(self) -> None:
        """Release and unmount; never fails, since the container is gone either way."""
        self.release()
        self.remove_directory()

    def release(self) -> None:
        """Let the agent wipe the tickets."""
        try:
            _ask_agent(
                self.agent_socket,
                "DELETE",
                f"/v1/leases/{self.lease_id}",
                None,
                seconds=_RELEASE_SECONDS,
            )
        except ShimError:
            pass  # the agent finds out on its own, when it runs again

    def remove_directory(self) -> None:
        """Unmount and remove the directory."""
        if self.is_users:
            _remove_users_directory(self.directory)
        else:
            _unmount(self.directory)


def lease_request(
    wish: Wish, container: str, runtime_state: str, *, name_fallback: bool
) -> dict[str, Any]:
    """Return the body of the request for a lease."""
    return {
        "spec": wish.spec,
        "container": container,
        "runtime_state": runtime_state,
        "uid": wish.uid,
        "gid": wish.gid,
        "mode": wish.mode,
        "keytab": wish.keytab,
        "name_fallback": name_fallback,
        "replay_cache": wish.keytab,
    }


def _run(runtime: str, arguments: Sequence[str]) -> int:
    # Python ignores these two signals, and a container must not inherit that.
    pid = os.posix_spawn(
        runtime, [runtime, *arguments], os.environ, setsigdef=[_signal.SIGPIPE, _signal.SIGXFSZ]
    )
    passed_on = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGWINCH")
    for number in (getattr(_signal, name) for name in passed_on):
        _signal.signal(number, lambda received, _: os.kill(pid, received))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0xFF


def _ask_agent(
    agent_socket: str,
    method: str,
    path: str,
    body: dict[str, Any] | None,
    *,
    seconds: float | None = None,
) -> dict[str, Any]:
    """Ask the agent; HTTP/1.0, so that the end of the connection is the end of the answer.

    Raises:
        NotYetError: no agent is there, it does not answer, or it says when to ask again.
        ShimError: what else the agent answered.
    """
    seconds = _AGENT_SECONDS if seconds is None else seconds
    payload = b""
    if body is not None:
        from credspec.runtimes import c_json

        payload = c_json.dumps(body)
    head = (
        f"{method} {path} HTTP/1.0\r\nHost: credspec\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(payload)}\r\n\r\n"
    )
    connection = _socket.socket(_socket.AF_UNIX)
    try:
        # Not by settimeout yet, with which a queue that is full would be an error at once.
        connection.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, _timeval(seconds))
        connection.connect(agent_socket)
        connection.settimeout(seconds)
        answer = _exchange(connection, head.encode() + payload)
    except (BlockingIOError, TimeoutError):
        raise NotYetError(
            f"credspec agent: no answer within {seconds:.0f} s at {agent_socket}; "
            "look at its log [agent-timeout]"
        ) from None
    except OSError as error:
        may_pass = error.errno in _NO_AGENT or (error.errno == _EACCES and has_just_booted())
        kind = NotYetError if may_pass else ShimError
        raise kind(
            f"credspec agent: not reachable at {agent_socket} ({error.strerror}); "
            f"{_START_AGENT} [agent-unreachable]"
        ) from None
    finally:
        connection.close()
    header, _, content = answer.partition(b"\r\n\r\n")
    status = header[9:12]
    if status == b"204":
        return {}
    from credspec.runtimes import c_json

    try:
        document = c_json.loads(content)
    except ValueError:
        if status.startswith(b"2"):
            raise NotYetError(
                "credspec agent: its answer ended early; look at its log [agent-answer]"
            ) from None
        document = {}
    if not status.startswith(b"2") or not isinstance(document, dict):
        text = (
            str((document.get("detail") if isinstance(document, dict) else "") or "")
            or f"credspec agent: answered {status.decode('ascii', 'replace')} [agent-answer]"
        )
        after = _retry_after(header)
        raise ShimError(text) if after is None else NotYetError(text, after)
    return document


def _retry_after(header: bytes) -> float | None:
    """Return after how many seconds to ask again (RFC 9110, 10.2.3), None if that is no use."""
    for line in header.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"retry-after" and value.strip().isdigit():
            return float(value)
    return None


def _timeval(seconds: float) -> bytes:
    """Return a timeval of socket(7): two longs."""
    size = _LONG_BYTES
    return int(seconds).to_bytes(size, sys.byteorder) + (0).to_bytes(size, sys.byteorder)


def _exchange(connection: _socket.socket, request: bytes) -> bytes:
    answer = bytearray()
    try:
        connection.sendall(request)
    except BrokenPipeError:
        pass  # a refusal may come, and the end with it, before the request was read
    try:
        while chunk := connection.recv(65536):
            answer += chunk
    except ConnectionResetError:
        pass  # it did not read all of the request, and says why
    if not answer:
        raise ConnectionResetError(_ECONNRESET, "it closed the connection")
    return bytes(answer)


def _make_users_directory(leases: str, directory: str, mode: int) -> None:
    """Make a lease's directory in the user's own runtime directory; the agent gives it away."""
    parent = leases.rpartition("/")[0]
    try:
        for path in (parent, leases):
            if not os.path.isdir(path):
                os.mkdir(path, 0o700)
        _remove_users_directory(directory)
        os.mkdir(directory, 0o700)
        os.chmod(directory, mode)
    except OSError as error:
        raise ShimError(
            f"{directory}: {error.strerror}; rootless containers need the user's runtime directory,"
            " which a logon makes (loginctl enable-linger USER) [user-directory]"
        ) from None


def _remove_users_directory(directory: str) -> None:
    if os.path.lexists(directory):
        import shutil  # which follows no links; the container's user may have put some there

        shutil.rmtree(directory, ignore_errors=True)


def _make_replay_cache(directory: str) -> None:
    """Make where those who may read the keytab keep what they have accepted, each in a file."""
    try:
        os.mkdir(directory)
        os.chmod(directory, 0o1777)  # noqa: S103 - the directory above decides who gets here
    except OSError as error:
        raise ShimError(f"{directory}: {error.strerror} [lease-directory]") from None


def _mount_tmpfs(directory: str, wish: Wish) -> None:
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        _unmount(directory)  # left by a container of the same name that ended badly
        os.mkdir(directory, 0o700)
    except OSError as error:
        kind = NotYetError if error.errno == _ENOENT else ShimError
        raise kind(
            f"credspec agent: {directory}: {error.strerror}; the agent makes this directory "
            f"when it starts: {_START_AGENT} [agent-unreachable]"
        ) from None
    options = f"{_TMPFS_OPTIONS},mode={wish.directory_mode:o},uid={wish.uid},gid={wish.gid}"
    options += mount_option(wish.label)
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    try:
        try:
            _mount(directory, flags, f"{options},{_NO_SWAP}")
        except OSError as error:
            if error.errno != _EINVAL:
                raise
            _mount(directory, flags, options)  # a kernel that does not know the option
    except OSError as error:
        os.rmdir(directory)
        reason = os.strerror(error.errno or 0)
        raise ShimError(f"{directory}: cannot mount a tmpfs: {reason} [mount]") from None


def _mount(directory: str, flags: int, options: str) -> None:
    c_library.mount(b"credspec", directory.encode(), b"tmpfs", flags, options.encode())


def _unmount(directory: str) -> None:
    try:
        c_library.unmount(directory.encode(), _MNT_DETACH)
    except OSError:
        pass  # nothing is mounted there
    try:
        os.rmdir(directory)
    except OSError:
        pass


def report(invocation: Invocation, text: str, *, level: str = "error") -> None:
    """Say why, where the engine looks: in the runtime's log as runc writes it, and on stderr.

    Of the log, engines show the last line of the level ``error`` when a container does not start.
    """
    sys.stderr.write(f"credspec-runtime: {text}\n")
    log = invocation.options.get("--log")
    if not log:
        return
    import time

    from credspec.runtimes import c_json

    entry = {
        "level": level,
        "msg": f"credspec: {text}",
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    try:
        fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        os.write(fd, c_json.dumps(entry) + b"\n")
        os.close(fd)
    except OSError:
        pass  # stderr has it
