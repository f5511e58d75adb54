"""The mounts of a volume: a tmpfs in the agent's run directory, bound to where the pod finds it.

The agent fills the tmpfs without access to the kubelet's directories. What is at the target is
never removed but by unmounting, and its directory only if it is empty.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from credspec.contract import c_library
from credspec.contract.errors import NotYetError, ShimError
from credspec.contract.host_paths import VOLUMES
from credspec.contract.lease import Lease
from credspec.contract.ticket_options import TicketRequest
from credspec.errors import AgentUnreachableError, CredspecError
from credspec.kubernetes.csi.volume_request import FileOptions

_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT, _MS_BIND = 1, 2, 4, 8, 32, 4096
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_FLAGS: Final = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
_MOST_STACKED: Final = 64
_DIRECTORY_MODE: Final = 0o750


class VolumeMounts:
    """Mounts volumes below the agent's run directory and binds them to targets. Calls block."""

    def __init__(self, run_directory: Path, agent_socket: Path) -> None:
        self._run_directory = run_directory
        self._agent_socket = agent_socket
        self.directory: Final = run_directory / VOLUMES

    def path(self, lease_id: str) -> Path:
        """Return where a volume's tmpfs is."""
        return self.directory / lease_id

    def is_mounted(self, lease_id: str) -> bool:
        """Return whether a volume's tmpfs is there."""
        return _device(self.path(lease_id)) not in {None, _device(self.directory)}

    def make(self, lease_id: str, options: FileOptions) -> None:
        """Mount a volume's tmpfs; what was mounted there goes.

        Raises:
            AgentUnreachableError: `agent-unreachable` if no agent has made the directory yet.
            CredspecError: `csi-mount`.
        """
        lease = Lease(lease_id, str(self._agent_socket), str(self._run_directory), name=VOLUMES)
        request = TicketRequest(
            "", options.uid, options.gid, options.mode, keytab=options.keytab, label=options.label
        )
        try:
            lease.make_directory(request)
        except NotYetError as error:
            raise AgentUnreachableError.of("agent-unreachable", error.text) from None
        except ShimError as error:
            raise CredspecError.of("csi-mount", error.text) from None

    def remove(self, lease_id: str) -> None:
        """Unmount a volume's tmpfs; one that is gone is fine.

        Raises:
            CredspecError: `csi-unmount`.
        """
        path = self.path(lease_id)
        _unmount_all(path, self.directory)
        _remove_directory(path)

    def is_bound(self, lease_id: str, target: Path, *, is_read_only: bool) -> bool:
        """Return whether the target shows the volume's tmpfs, as it is to be shown."""
        found = _device(target)
        if found is None or found != _device(self.path(lease_id)):
            return False
        return not is_read_only or bool(os.statvfs(target).f_flag & os.ST_RDONLY)

    def bind(self, lease_id: str, target: Path, *, is_read_only: bool) -> None:
        """Let the target show the volume, in place of anything that was mounted there before.

        Raises:
            CredspecError: `csi-mount`, `csi-unmount`.
        """
        if self.is_bound(lease_id, target, is_read_only=is_read_only):
            return
        _unmount_all(target, target.parent)
        source, where = os.fsencode(self.path(lease_id)), os.fsencode(target)
        try:
            try:
                target.mkdir(mode=_DIRECTORY_MODE)
            except FileExistsError:
                if not stat.S_ISDIR(target.lstat().st_mode):
                    raise
            c_library.mount(source, where, b"", _MS_BIND, b"")
            # Options of a bind are taken from the source, but for what a remount of it says.
            if is_read_only:
                flags = _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _FLAGS
                c_library.mount(b"", where, b"", flags, b"")
        except OSError as error:
            raise _failed("csi-mount", target, error) from None

    def unbind(self, target: Path) -> None:
        """Unmount what is at the target and remove its directory; one that is gone is fine.

        Raises:
            CredspecError: `csi-unmount`.
        """
        _unmount_all(target, target.parent)
        _remove_directory(target)


def _unmount_all(path: Path, parent: Path) -> None:
    """Unmount all that is stacked on a directory.

    Raises:
        CredspecError: `csi-unmount`.
    """
    for _ in range(_MOST_STACKED):
        device = _device(path)
        if device is None or device == _device(parent):
            return
        try:
            # Programs of a pod that is being ended may still have it open.
            c_library.unmount(os.fsencode(path), _MNT_DETACH | _UMOUNT_NOFOLLOW)
        except OSError as error:
            raise _failed("csi-unmount", path, error) from None
    raise CredspecError.of("csi-unmount", "too many mounts on each other", where=str(path))


def _remove_directory(path: Path) -> None:
    try:
        path.rmdir()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _failed("csi-unmount", path, error) from None


def _device(path: Path) -> int | None:
    """Return the file system that a directory is on, None if there is no such directory."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _failed("csi-mount", path, error) from None
    return status.st_dev if stat.S_ISDIR(status.st_mode) else None


def _failed(code: str, path: Path, error: OSError) -> CredspecError:
    return CredspecError.of(
        code,
        error.strerror or str(error),
        where=str(path),
        remedy="the driver's container needs CAP_SYS_ADMIN, and the kubelet's directory with "
        "mountPropagation: Bidirectional",
    )
