"""``credspec-runtime``: an OCI runtime that gives containers their tickets, and is runc otherwise.

On ``create`` (and ``run``) of a container that carries a credential spec it mounts a small tmpfs,
asks the agent to fill it, adds mount and environment to the bundle's ``config.json``, and runs the
real runtime. On ``delete`` it gives the lease back. Everything else goes straight through.

This module starts at every step of every container's life, so it imports next to nothing: `posix`
instead of `os`, no annotations machinery. What a container with a spec needs, still standard
library only, is in `container_lease` and `oci_bundle`.
"""

import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself costs milliseconds
    from collections.abc import Sequence
    from typing import NoReturn

ANNOTATION = "credspec.dev/spec"
VARIABLE = "CREDSPEC"
LEASES = "leases"
REAL_RUNTIMES = ("runc", "crun")

_SIGPIPE, _SIGXFSZ = 13, 25
_SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Options of runc and crun before the command that take a value as the next argument.
_VALUE_OPTIONS = frozenset(
    {"--root", "--log", "--log-format", "--log-level", "--criu", "--rootless", "--cgroup-manager"}
)
# The same after the commands that take a bundle; with the others, the last argument tells.
_WITH_BUNDLE = frozenset({"create", "run", "restore"})
_CREATE_VALUE_OPTIONS = frozenset(
    {
        "--bundle",
        "-b",
        "--console-socket",
        "--pid-file",
        "--pidfd-socket",
        "--preserve-fds",
        "--config",
        "-f",
    }
)
# In the bytes of a config.json, lower case and without blanks.
_MARKS = (b"credspec", b"credentialspec")
_ESCAPES = (b"%", b"\\")  # what a name may be hidden behind


class ShimError(Exception):
    """The container cannot have its tickets, and therefore does not start; the text says why."""


class Invocation:
    """A runtime's command line, as far as the shim must understand it.

    `command` is empty if there is none; `container` is its last plain argument.
    """

    def __init__(self, arguments: "Sequence[str]") -> None:
        self.options: dict[str, str] = {}
        self.command = ""
        self.container = ""
        known = _VALUE_OPTIONS
        rest = iter(arguments)
        for argument in rest:
            if argument.startswith("-") and argument != "-":
                name, equals, value = argument.partition("=")
                # Go's flag packages take one dash or two.
                if name not in known and f"-{name}" in known:
                    name = f"-{name}"
                self.options[name] = value if equals else next(rest, "") if name in known else ""
            elif self.command:
                self.container = argument
            else:
                self.command = argument
                known = _CREATE_VALUE_OPTIONS if argument in _WITH_BUNDLE else frozenset()

    @property
    def bundle(self) -> str:
        """The bundle's directory."""
        return self.options.get("--bundle") or self.options.get("-b") or posix.getcwd()

    @property
    def is_detached(self) -> bool:
        """Whether ``run`` ends before the container does."""
        return bool({"--detach", "-d"} & self.options.keys())

    def state_directory(self, runtime: str) -> str:
        """Where the runtime keeps the container as long as it exists."""
        root = self.options.get("--root") or _default_root(runtime.rpartition("/")[2])
        return f"{root.rstrip('/')}/{self.container}"

    def lease_id(self, runtime: str) -> str:
        """The id of the container's lease: the same at create and delete, and a safe file name."""
        from _blake2 import blake2b  # hashlib would load OpenSSL

        # What `b2sum --length 128` tells the launcher.
        digest = blake2b(self.state_directory(runtime).encode(), digest_size=16)
        return str(digest.hexdigest())


def _default_root(name: str) -> str:
    """Return where runc or crun keeps its containers by default; both have their rules."""
    users = posix.environ.get(b"XDG_RUNTIME_DIR", b"").decode("utf-8", "surrogateescape")
    is_users = bool(users)
    if name != "crun" and posix.geteuid() == 0:
        # runc: root of a user namespace has the user's variables, unless it calls itself root.
        is_users = is_users and unprivileged_uid() is not None
        is_users = is_users and posix.environ.get(b"USER") != b"root"
    return f"{users}/{name}" if is_users else f"/run/{name}"


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


def main(
    *,
    agent_socket: str | None = None,
    run_directory: str = "/run/credspec",
    runtimes: "Sequence[str]" = REAL_RUNTIMES,
    wait_seconds: float = 0.0,
) -> "NoReturn":
    """Act as the runtime; the arguments are the process's own.

    `run_directory` is the agent's, `agent_socket` its socket, `runtimes` are the names or absolute
    paths of real runtimes, of which the first that exists is run. `wait_seconds` is for how long a
    container's start waits for an agent or a domain that is not there yet.
    """
    arguments = sys.argv[1:]
    invocation = Invocation(arguments)
    agent_socket = agent_socket or f"{run_directory}/agent.sock"
    runtime = ""
    status = None
    try:
        runtime = _find_runtime(runtimes)
        if invocation.command in {"create", "run"} and _may_have_spec(invocation.bundle):
            from credspec.runtimes.container_lease import run_with_lease

            status = run_with_lease(
                invocation,
                runtime,
                arguments,
                agent_socket,
                run_directory,
                wait_seconds=wait_seconds,
            )
        elif invocation.command == "delete" and invocation.container:
            if _has_lease(invocation, runtime, run_directory):
                from credspec.runtimes.container_lease import delete_with_lease

                status = delete_with_lease(
                    invocation, runtime, arguments, agent_socket, run_directory
                )
        elif invocation.command == "checkpoint" and _has_lease(invocation, runtime, run_directory):
            raise ShimError(
                "checkpoint: it would write the container's tickets to the disk; "
                "stop the container and start it again instead [checkpoint-refused]"
            )
        elif invocation.command == "restore" and _may_have_spec(invocation.bundle):
            from credspec.runtimes.container_lease import check_restore

            check_restore(invocation, run_directory)
    except ShimError as error:
        status = _report(invocation, str(error))
    except Exception as error:  # the engine shows what stands in the log, and nothing else
        status = _report(invocation, f"internal error: {error!r} [internal]")
    if status is not None:
        sys.exit(status)
    _become(runtime, arguments)


def _report(invocation: Invocation, text: str) -> int:
    from credspec.runtimes.container_lease import report

    report(invocation, text)
    return 1


def _become(runtime: str, arguments: "Sequence[str]") -> "NoReturn":
    import _signal  # what signal wraps; the wrapper costs milliseconds

    # Python ignores these two, and a container must not inherit that.
    for number in (_SIGPIPE, _SIGXFSZ):
        _signal.signal(number, _signal.SIG_DFL)
    posix.execv(runtime, [runtime, *arguments])


def _may_have_spec(bundle: str) -> bool:
    """Return whether a bundle is worth parsing: most containers carry no spec.

    A name in an odd spelling counts too, since it must be refused and not overlooked.
    """
    try:
        fd = posix.open(f"{bundle}/config.json", posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return False  # the real runtime words this best
    try:
        data = posix.read(fd, posix.fstat(fd).st_size)
    finally:
        posix.close(fd)
    plain = data.lower().translate(None, b" \t\r\n-_.")
    return (
        not data.isascii()
        or any(escape in data for escape in _ESCAPES)
        or any(mark in plain for mark in _MARKS)
    )


def _has_lease(invocation: Invocation, runtime: str, run_directory: str) -> bool:
    directory = leases_directory(run_directory)
    try:
        posix.stat(f"{directory}/{invocation.lease_id(runtime)}")
    except OSError:
        return False
    return True


def runtime_paths(runtimes: "Sequence[str]") -> list[str]:
    """Return where real runtimes may be, given their names or absolute paths, in this order."""
    return [
        path
        for name in runtimes
        for path in ([name] if name[0] == "/" else [f"{d}/{name}" for d in _SEARCH_PATH.split(":")])
    ]


def _find_runtime(runtimes: "Sequence[str]") -> str:
    for path in runtime_paths(runtimes):
        if posix.access(path, posix.X_OK):
            return path
    raise ShimError(
        f"container runtime: none of {', '.join(runtimes)} is installed; "
        "install runc or crun [runtime-missing]"
    )
