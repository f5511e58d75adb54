"""A container's root file system, before the container runs: is there a krb5.conf, which libkrb5.

Nothing in it is trusted: paths are resolved within it by the kernel (openat2(2), Linux 5.6), only
regular files are opened, and what cannot be looked at stays as it is. Standard library only: it
runs on the path of every container with a spec.
"""

from __future__ import annotations

import posix

from credspec.contract import c_library
from credspec.contract.lease_paths import normal_path

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself costs milliseconds
    from types import TracebackType
    from typing import Any, Self

KRB5_CONF = "/run/credspec/krb5.conf"
"""The lease's krb5.conf in the container."""

_PATH_ONLY = posix.O_PATH | posix.O_CLOEXEC
_LIBRARY = "libkrb5.so.3"
_LIBRARY_DIRECTORIES = (
    "lib",
    "lib64",
    "usr/lib",
    "usr/lib64",
    f"lib/{posix.uname().machine}-linux-gnu",
    f"usr/lib/{posix.uname().machine}-linux-gnu",
    "usr/local/lib",
)
_TYPE, _REGULAR = 0o170000, 0o100000  # inode(7)
_LARGEST_LIBRARY = 8 * 1024 * 1024
# Of krb5 1.18, as is the word "fallback", which libraries before it take for a broken file.
_SINCE_1_18 = b"default_rcache_name\0"


class ImageRoot:
    """The root file system of a container that is being created; closes with its block.

    With `is_engines`, any path is one that an engine made for this container. Else that is known
    only of one inside the bundle: another may be the user's own, or the host's.
    """

    def __init__(self, config: dict[str, Any], bundle: str, *, is_engines: bool) -> None:
        self._mounts = config.get("mounts") or []
        self._fd = _open_root(config, bundle, is_engines=is_engines)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._fd is not None:
            posix.close(self._fd)

    def reads_fallback(self) -> bool:
        """Return whether the image's libkrb5 knows the word `fallback`, or there is none to break.

        MIT krb5 before 1.18 refuses a krb5.conf with ``dns_canonicalize_hostname = fallback``.
        """
        if self._fd is None:
            return False
        for directory in _LIBRARY_DIRECTORIES:
            try:
                data = _content(self._fd, f"{directory}/{_LIBRARY}".encode())
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                return False
            if _SINCE_1_18 not in data:
                return False
        return True

    def offer_krb5_conf(self) -> bool:
        """Let ``/etc/krb5.conf`` be the lease's, if there is none; return whether it is now.

        It is a symbolic link: a mount would show the file as it was when the container started.
        Programs that drop their environment need it. Where the user mounts something there, or
        where nothing can be written, nothing is done.
        """
        if self._fd is None or any(_covers_etc(str(m.get("destination"))) for m in self._mounts):
            return False
        try:
            etc = c_library.open_in_root(self._fd, b"etc", _PATH_ONLY | posix.O_DIRECTORY)
        except OSError:
            return False
        try:
            posix.symlink(KRB5_CONF, "krb5.conf", dir_fd=etc)
        except FileExistsError:
            return _is_link_to_lease(etc)
        except OSError:
            return False
        finally:
            posix.close(etc)
        return True


def _open_root(config: dict[str, Any], bundle: str, *, is_engines: bool) -> int | None:
    root = config.get("root")
    path = root.get("path") if isinstance(root, dict) else None
    if not isinstance(path, str) or not path or "\0" in path:
        return None
    inside = normal_path(path if path.startswith("/") else f"{bundle}/{path}")
    if not (is_engines or inside.startswith(f"{normal_path(bundle)}/")):
        return None
    try:
        fd = posix.open(inside, _PATH_ONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW)
    except OSError:
        return None
    found, host = posix.fstat(fd), posix.stat("/")
    if (found.st_dev, found.st_ino) == (host.st_dev, host.st_ino):
        posix.close(fd)
        return None
    return fd


def _content(root: int, path: bytes) -> bytes:
    """Return a regular file's content, empty for anything else; raises OSError."""
    # By its path first: to open a device is to do something with it.
    found = c_library.open_in_root(root, path, _PATH_ONLY)
    try:
        status = posix.fstat(found)
        if status.st_mode & _TYPE != _REGULAR or status.st_size > _LARGEST_LIBRARY:
            return b""
        with open(f"/proc/self/fd/{found}", "rb") as file:
            return file.read(_LARGEST_LIBRARY)
    finally:
        posix.close(found)


def _covers_etc(destination: str) -> bool:
    path = normal_path(f"//{destination}").replace("//", "/")
    return path in {"/", "/etc"} or f"{path}/".startswith("/etc/krb5.conf/")


def _is_link_to_lease(etc: int) -> bool:
    try:
        return posix.readlink("krb5.conf", dir_fd=etc) == KRB5_CONF
    except OSError:
        return False
