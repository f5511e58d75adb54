"""Where the directories of leases are on the host: the agent's, or a user's own."""

import posix

LEASES = "leases"
"""The directory of containers' leases in the agent's run directory."""
VOLUMES = "volumes"
"""That of the volumes of pods."""

_TYPE, _DIRECTORY = 0o170000, 0o040000  # inode(7)


def is_there(path: str) -> bool:
    """Return whether there is anything at a path, a link to nothing included."""
    try:
        posix.lstat(path)
    except (OSError, ValueError):
        return False
    return True


def is_directory(path: str) -> bool:
    """Return whether there is a directory at a path, or a link to one."""
    try:
        return posix.stat(path).st_mode & _TYPE == _DIRECTORY
    except (OSError, ValueError):
        return False


def unprivileged_uid() -> "int | None":
    """Return the host's number of the user on whose behalf this runs, None for the host's root."""
    fd = posix.open("/proc/self/uid_map", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        inside, outside, _ = posix.read(fd, 4096).split()[:3]
    finally:
        posix.close(fd)
    # The first line is that of the user itself: inside it is root.
    uid = posix.geteuid() - int(inside) + int(outside)
    return uid or None


def leases_directory(run_directory: str, name: str = LEASES) -> str:
    """Return where leases' directories are: the host's, or a user's own with rootless engines.

    `name` is that of the host's, in the agent's run directory.

    A user cannot mount anything that the agent would see; but its runtime directory is a tmpfs.
    Root of a system container with an agent of its own is no such user: it can write the agent's.
    """
    hosts = f"{run_directory}/{name}"
    uid = None if posix.access(hosts, posix.W_OK) else unprivileged_uid()
    return hosts if uid is None else f"/run/user/{uid}/credspec/leases"
