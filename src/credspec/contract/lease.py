"""A lease as its holder sees it: the directory on the host, and the agent's record of it.

For the shim, Podman's hook and ``credspec run``. Standard library only.
"""

from __future__ import annotations

import posix

from credspec.contract import c_library
from credspec.contract.agent_client import ask_agent
from credspec.contract.errors import NotYetError, ShimError, StartAbandonedError
from credspec.contract.host_paths import LEASES, is_directory, is_there, leases_directory
from credspec.contract.selinux_label import mount_option, set_label
from credspec.contract.start_wait import EndedBySignals, StartWait

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself costs milliseconds
    from typing import Any

    from credspec.contract.ticket_options import TicketRequest

LEASE_MIB = 16
"""The size of a lease's tmpfs: a limit, of which only what is in it takes memory.

Programs keep the tickets of services in it, of 4 to 12 KiB in large domains: a thousand fit. A
replay cache takes 20 bytes for each logon that was accepted within five minutes.
"""

_TMPFS_OPTIONS = f"size={LEASE_MIB}m,nr_inodes=256"
_REPLAY_CACHE = "rcache"
_NO_SWAP = "noswap"  # tmpfs(5), Linux 6.4 and newer; not in a user namespace
_RELEASE_SECONDS = 10.0  # the agent finds out on its own, too
_ENOENT, _EINVAL = 2, 22
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MNT_DETACH = 2, 4, 8, 2


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
        request: TicketRequest,
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
        body = lease_request(request, container, runtime_state, name_fallback=name_fallback)
        made = -1

        def attempt() -> dict[str, Any]:
            nonlocal made
            if made < 0:
                self.make_directory(request)
                # As long as it is open, no other file system has its number.
                made = posix.open(
                    self.directory, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC
                )
            elif not self._is_directory(made):
                raise StartAbandonedError(wait.waited)
            answer = ask_agent(self.agent_socket, "PUT", f"/v1/leases/{self.lease_id}", body)
            check_answer(answer, request.tickets)
            return answer

        with EndedBySignals():
            try:
                return wait.run(attempt)
            except BaseException as error:
                # The container may have been deleted meanwhile, and another made of the same id.
                if made < 0 or self._is_directory(made):
                    self.give_back()
                if not isinstance(error, ShimError) or isinstance(error, StartAbandonedError):
                    raise
                waited = f"; waited for {wait.waited:.0f} s" if wait.waited else ""
                raise ShimError(error.code, error.text + waited) from None
            finally:
                if made >= 0:
                    posix.close(made)

    def _is_directory(self, fd: int) -> bool:
        """Return whether an open directory is still the lease's."""
        try:
            one, other = posix.fstat(fd), posix.lstat(self.directory)
        except OSError:
            return False
        return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)

    def make_directory(self, request: TicketRequest) -> None:
        """Make the directory that the agent is to fill."""
        if self.is_users:
            _make_users_directory(self.leases_directory, self.directory, request.directory_mode)
            set_label(self.directory, request.label)
        else:
            _mount_tmpfs(self.directory, request)
        if request.keytab:
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
            ask_agent(
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
    request: TicketRequest, container: str, runtime_state: str, *, name_fallback: bool
) -> dict[str, Any]:
    """Return the body of the request for a lease."""
    return {
        "spec": request.spec,
        "container": container,
        "runtime_state": runtime_state,
        "uid": request.uid,
        "gid": request.gid,
        "mode": request.mode,
        "keytab": request.keytab,
        "name_fallback": name_fallback,
        "replay_cache": request.keytab,
        **({} if request.tickets == "tgt" else {"tickets": request.tickets}),
        **({"services": list(request.services)} if request.services else {}),
    }


def check_answer(answer: dict[str, Any], tickets: str) -> None:
    """Refuse the answer of an agent that does not know which tickets were asked for.

    Raises:
        ShimError: `agent-too-old`.
    """
    if tickets != "tgt" and answer.get("tickets") != tickets:
        raise ShimError(
            "agent-too-old",
            f"credspec agent: it does not know tickets={tickets}, and gave a ticket-granting "
            "ticket, which is wiped again; restart the agent after the upgrade",
        )


def _make_users_directory(leases: str, directory: str, mode: int) -> None:
    """Make a lease's directory in the user's own runtime directory; the agent gives it away."""
    parent = leases.rpartition("/")[0]
    try:
        for path in (parent, leases):
            if not is_directory(path):
                posix.mkdir(path, 0o700)
        _remove_users_directory(directory)
        posix.mkdir(directory, 0o700)
        posix.chmod(directory, mode)
    except OSError as error:
        raise ShimError(
            "user-directory",
            f"{directory}: {error.strerror}; rootless containers need the user's runtime directory,"
            " which a logon makes (loginctl enable-linger USER)",
        ) from None


def _remove_users_directory(directory: str) -> None:
    if is_there(directory):
        import shutil  # which follows no links; the container's user may have put some there

        shutil.rmtree(directory, ignore_errors=True)


def _make_replay_cache(directory: str) -> None:
    """Make where those who may read the keytab keep what they have accepted, each in a file."""
    try:
        posix.mkdir(directory)
        posix.chmod(directory, 0o1777)  # the directory above decides who gets here
    except OSError as error:
        raise ShimError("lease-directory", f"{directory}: {error.strerror}") from None


def _mount_tmpfs(directory: str, request: TicketRequest) -> None:
    try:
        posix.mkdir(directory, 0o700)
    except FileExistsError:
        _unmount(directory)  # left by a container of the same name that ended badly
        posix.mkdir(directory, 0o700)
    except OSError as error:
        kind = NotYetError if error.errno == _ENOENT else ShimError
        failure = kind(
            "agent-unreachable",
            f"credspec agent: {directory}: {error.strerror}; the agent makes this directory when "
            "it starts: start it with `systemctl start credspec-agent` or `credspec agent`",
        )
        failure.is_agent_missing = True
        raise failure from None
    options = (
        f"{_TMPFS_OPTIONS},mode={request.directory_mode:o},uid={request.uid},gid={request.gid}"
    )
    options += mount_option(request.label)
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    try:
        try:
            _mount(directory, flags, f"{options},{_NO_SWAP}")
        except OSError as error:
            if error.errno != _EINVAL:
                raise
            _mount(directory, flags, options)  # a kernel that does not know the option
    except OSError as error:
        posix.rmdir(directory)
        reason = posix.strerror(error.errno or 0)
        raise ShimError("mount", f"{directory}: cannot mount a tmpfs: {reason}") from None


def _mount(directory: str, flags: int, options: str) -> None:
    c_library.mount(b"credspec", directory.encode(), b"tmpfs", flags, options.encode())


def _unmount(directory: str) -> None:
    try:
        c_library.unmount(directory.encode(), _MNT_DETACH)
    except OSError:
        pass  # nothing is mounted there
    try:
        posix.rmdir(directory)
    except OSError:
        pass
