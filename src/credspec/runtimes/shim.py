"""``credspec-runtime``: an OCI runtime that gives containers their tickets and leaves the rest to runc.

On ``create`` (and ``run``) of a container that carries a credential spec it mounts a small tmpfs,
asks the agent to fill it, adds mount and environment to the bundle's ``config.json``, and runs the
real runtime. On ``delete`` it gives the lease back. Everything else goes straight through.

Standard library only, and as little of it as possible: this starts once for each container and
each step of its life. What one path alone needs is imported on that path.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself costs milliseconds
    from collections.abc import Sequence
    from typing import Any, NoReturn

ANNOTATION = "credspec.dev/spec"
VARIABLE = "CREDSPEC"
MOUNT_POINT = "/run/credspec"

_MAX_SPEC_CHARACTERS = 128 * 1024
_TMPFS_OPTIONS = "size=1m,nr_inodes=64,mode=0700"
_AGENT_SECONDS = 60.0  # longer than the agent's own deadline, so that its reason arrives
_SIGPIPE, _SIGXFSZ = 13, 25
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MNT_DETACH = 2, 4, 8, 2
# Options of runc and crun before the command that take a value as the next argument.
_VALUE_OPTIONS = frozenset(
    {"--root", "--log", "--log-format", "--criu", "--rootless", "--cgroup-manager", "--log-level"}
)
# The same for create, run and delete.
_COMMAND_VALUE_OPTIONS = frozenset(
    {"--bundle", "-b", "--console-socket", "--pid-file", "--preserve-fds", "--config", "-f"}
)
_SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ShimError(Exception):
    """The container cannot have its tickets, and therefore does not start; the text says why."""


class Invocation:
    """A runtime's command line, as far as the shim must understand it.

    `command` is empty if there is none; `container` is its last plain argument.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.options: dict[str, str] = {}
        self.command = ""
        plain: list[str] = []
        rest = iter(arguments)
        for argument in rest:
            name, equals, value = argument.partition("=")
            if not argument.startswith("-") or argument == "-":
                if self.command:
                    plain.append(argument)
                else:
                    self.command = argument
                continue
            known = _COMMAND_VALUE_OPTIONS if self.command else _VALUE_OPTIONS
            # Go's flag packages take one dash or two.
            long = name if name in known else f"-{name}"
            if equals:
                self.options[long if long in known else name] = value
            elif long in known:
                self.options[long] = next(rest, "")
            else:
                self.options[name] = ""
        self.container = plain[-1] if plain else ""

    @property
    def bundle(self) -> str:
        """The bundle's directory."""
        return self.options.get("--bundle") or self.options.get("-b") or os.getcwd()

    def state_directory(self, runtime: str) -> str:
        """Where the runtime keeps the container as long as it exists."""
        root = self.options.get("--root") or f"/run/{os.path.basename(runtime)}"
        return os.path.join(os.path.abspath(root), self.container)

    def lease_id(self, runtime: str) -> str:
        """The id of the container's lease: the same on create and on delete, and a safe file name."""
        from _blake2 import blake2s  # hashlib would load OpenSSL

        return str(blake2s(self.state_directory(runtime).encode(), digest_size=16).hexdigest())


def main(
    *,
    agent_socket: str | None = None,
    run_directory: str | None = None,
    runtimes: Sequence[str] = ("runc", "crun"),
) -> NoReturn:
    """Act as the runtime; the arguments are the process's own.

    `run_directory` is the agent's, `agent_socket` its socket, `runtimes` are the names or absolute
    paths of real runtimes, of which the first that exists is run.
    """
    run_directory = run_directory or "/run/credspec"
    agent_socket = agent_socket or f"{run_directory}/agent.sock"
    arguments = sys.argv[1:]
    invocation = Invocation(arguments)
    try:
        runtime = _find_runtime(runtimes)
        if invocation.command in {"create", "run"}:
            lease = _lease_for(invocation, runtime, agent_socket, run_directory)
            if lease is not None:
                sys.exit(_run_with_lease(invocation, [runtime, *arguments], lease))
        elif invocation.command == "delete" and invocation.container:
            lease = Lease(invocation.lease_id(runtime), agent_socket, run_directory)
            if os.path.isdir(lease.directory):
                status = _run(runtime, arguments)
                if not os.path.isdir(invocation.state_directory(runtime)):
                    lease.give_back()
                sys.exit(status)
    except ShimError as error:
        _report(invocation, str(error))
        sys.exit(1)
    _default_signals()
    os.execv(runtime, [runtime, *arguments])


class Lease:
    """A container's lease as the shim holds it: the tmpfs on the host and the agent's record."""

    def __init__(self, lease_id: str, agent_socket: str, run_directory: str) -> None:
        self.lease_id = lease_id
        self.agent_socket = agent_socket
        self.directory = f"{run_directory}/leases/{lease_id}"

    def take(self, request: dict[str, Any], uid: int, gid: int) -> dict[str, Any]:
        """Mount the directory and have it filled; on failure nothing is left."""
        _mount_tmpfs(self.directory, uid, gid)
        try:
            return _ask_agent(self.agent_socket, "PUT", f"/v1/leases/{self.lease_id}", request)
        except BaseException:
            self.give_back()
            raise

    def give_back(self) -> None:
        """Release and unmount; never fails, since the container is gone either way."""
        try:
            _ask_agent(self.agent_socket, "DELETE", f"/v1/leases/{self.lease_id}", None)
        except ShimError:
            pass  # the agent finds out by itself, when it runs again
        _unmount(self.directory)


def _lease_for(
    invocation: Invocation, runtime: str, agent_socket: str, run_directory: str
) -> Lease | None:
    """Return the lease of a container with a spec, its bundle edited; None for one without."""
    path = os.path.join(invocation.bundle, "config.json")
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError:
        return None  # the real runtime words this best
    # Parsing costs; a container without a spec does not pay.
    if (
        b"redential" not in data
        and VARIABLE.encode() not in data
        and ANNOTATION.encode() not in data
    ):
        return None
    import json

    try:
        config = json.loads(data)
        spec = take_spec(config)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    if spec is None:
        return None
    if len(spec) > _MAX_SPEC_CHARACTERS:
        raise ShimError(
            f"credential spec: {len(spec)} characters; expected at most 64 KiB [spec-too-large]"
        )
    uid, gid = host_ids(config)
    lease = Lease(invocation.lease_id(runtime), agent_socket, run_directory)
    request = {
        "spec": spec,
        "container": invocation.container,
        "runtime_state": invocation.state_directory(runtime),
        "uid": uid,
        "gid": gid,
    }
    answer = lease.take(request, uid, gid)
    add_tickets(config, lease.directory, answer["environment"])
    _replace_file(path, json.dumps(config).encode())
    return lease


def take_spec(config: dict[str, Any]) -> str | None:
    """Return the reference to a container's credential spec, or None; the first carrier wins.

    Carriers are the annotation, OCI ``windows.credentialSpec`` (the document itself) and the
    environment variable, which is taken out, so that the container does not see it.
    """
    process = config.get("process") or {}
    kept = []
    from_environment = None
    for entry in process.get("env") or []:
        name, _, value = entry.partition("=")
        if name == VARIABLE:
            from_environment = value
        else:
            kept.append(entry)
    if from_environment is not None:
        process["env"] = kept
    annotated = (config.get("annotations") or {}).get(ANNOTATION)
    if annotated:
        return str(annotated)
    document = (config.get("windows") or {}).get("credentialSpec")
    if document:
        import json

        return "raw://" + (document if isinstance(document, str) else json.dumps(document))
    return from_environment or None


def host_ids(config: dict[str, Any]) -> tuple[int, int]:
    """Return the host's uid and gid of the container's process, through its user namespace."""
    user = (config.get("process") or {}).get("user") or {}
    linux = config.get("linux") or {}
    return (
        _mapped(int(user.get("uid", 0)), linux.get("uidMappings"), "uid"),
        _mapped(int(user.get("gid", 0)), linux.get("gidMappings"), "gid"),
    )


def _mapped(number: int, mappings: list[dict[str, int]] | None, kind: str) -> int:
    if not mappings:
        return number
    for mapping in mappings:
        offset = number - mapping["containerID"]
        if 0 <= offset < mapping["size"]:
            return mapping["hostID"] + offset
    raise ShimError(
        f"container user: {kind} {number} is not mapped to the host; "
        f"add it to the {kind} mappings of the container's user namespace [container-user-unmapped]"
    )


def add_tickets(config: dict[str, Any], directory: str, environment: dict[str, str]) -> None:
    """Add the lease's mount and environment to a container's configuration.

    ``KRB5CCNAME`` is ours, a ``KRB5_CONFIG`` that the image or the user set stays.
    """
    mounts = config.setdefault("mounts", [])
    mounts[:] = [m for m in mounts if m.get("destination", "").rstrip("/") != MOUNT_POINT]
    mounts.append(
        {
            "destination": MOUNT_POINT,
            "type": "bind",
            "source": directory,
            "options": ["bind", "nosuid", "nodev", "noexec", "rw", "rprivate"],
        }
    )
    process = config.setdefault("process", {})
    present = process.get("env") or []
    names = {entry.partition("=")[0] for entry in present}
    added = {k: v for k, v in environment.items() if k == "KRB5CCNAME" or k not in names}
    process["env"] = [e for e in present if e.partition("=")[0] not in added] + [
        f"{name}={value}" for name, value in added.items()
    ]


def _run_with_lease(invocation: Invocation, command: list[str], lease: Lease) -> int:
    """Run create or run to its end; a container that did not come to be keeps no lease."""
    status = _run(command[0], command[1:])
    detached = invocation.command == "create" or bool(
        {"--detach", "-d"} & invocation.options.keys()
    )
    if status != 0 or not detached:
        lease.give_back()
    return status


def _run(runtime: str, arguments: Sequence[str]) -> int:
    # Python ignores these two signals, and a container must not inherit that.
    pid = os.posix_spawn(runtime, [runtime, *arguments], os.environ, setsigdef=[_SIGPIPE, _SIGXFSZ])
    import signal

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGWINCH):
        signal.signal(number, lambda received, _: os.kill(pid, received))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0xFF


def _default_signals() -> None:
    import _signal  # what signal wraps; the wrapper costs milliseconds

    for number in (_SIGPIPE, _SIGXFSZ):
        _signal.signal(number, _signal.SIG_DFL)


def _find_runtime(runtimes: Sequence[str]) -> str:
    for name in runtimes:
        for directory in [""] if name.startswith("/") else _SEARCH_PATH.split(":"):
            path = os.path.join(directory, name)
            if os.access(path, os.X_OK):
                return path
    raise ShimError(
        f"container runtime: none of {', '.join(runtimes)} is installed; "
        "install runc or crun [runtime-missing]"
    )


def _ask_agent(
    agent_socket: str, method: str, path: str, body: dict[str, Any] | None
) -> dict[str, Any]:
    """Ask the agent; HTTP/1.0, so that the end of the connection is the end of the answer."""
    import json
    from _socket import AF_UNIX, SOCK_STREAM, socket  # the wrapper costs milliseconds

    payload = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{method} {path} HTTP/1.0\r\nHost: credspec\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(payload)}\r\n\r\n"
    )
    connection = socket(AF_UNIX, SOCK_STREAM)
    answer = bytearray()
    try:
        connection.settimeout(_AGENT_SECONDS)
        connection.connect(agent_socket)
        connection.sendall(head.encode() + payload)
        while chunk := connection.recv(65536):
            answer += chunk
    except TimeoutError:
        raise ShimError(
            f"credspec agent: no answer within {_AGENT_SECONDS:.0f} s at {agent_socket}; "
            "look at its log [agent-timeout]"
        ) from None
    except OSError as error:
        raise ShimError(
            f"credspec agent: not reachable at {agent_socket} ({error.strerror}); start it with "
            "`systemctl start credspec-agent` or `credspec agent` [agent-unreachable]"
        ) from None
    finally:
        connection.close()
    header, _, content = bytes(answer).partition(b"\r\n\r\n")
    status = header[9:12]
    try:
        document = json.loads(content) if content else {}
    except ValueError:
        document = {}
    if not status.startswith(b"2") or not isinstance(document, dict):
        raise ShimError(
            str(document.get("detail") if isinstance(document, dict) else "")
            or f"credspec agent: answered {status.decode('ascii', 'replace')} [agent-answer]"
        )
    return document


def _mount_tmpfs(directory: str, uid: int, gid: int) -> None:
    from ctypes import CDLL, get_errno

    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        _unmount(directory)  # left by a container of the same name that ended badly
        os.mkdir(directory, 0o700)
    except OSError as error:
        raise ShimError(
            f"credspec agent: {directory}: {error.strerror}; the agent makes this directory when it "
            "starts: start it with `systemctl start credspec-agent` or `credspec agent` "
            "[agent-unreachable]"
        ) from None
    options = f"{_TMPFS_OPTIONS},uid={uid},gid={gid}"
    libc = CDLL(None, use_errno=True)
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    if libc.mount(b"credspec", directory.encode(), b"tmpfs", flags, options.encode()) != 0:
        os.rmdir(directory)
        raise ShimError(f"{directory}: cannot mount a tmpfs: {os.strerror(get_errno())} [mount]")


def _unmount(directory: str) -> None:
    from ctypes import CDLL

    CDLL(None).umount2(directory.encode(), _MNT_DETACH)
    try:
        os.rmdir(directory)
    except OSError:
        pass


def _replace_file(path: str, content: bytes) -> None:
    temporary = f"{path}.credspec"
    mode = os.stat(path).st_mode & 0o777
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
    os.rename(temporary, path)


def _report(invocation: Invocation, text: str) -> None:
    """Say why, where the engine looks: in the runtime's log as runc writes it, and on stderr."""
    sys.stderr.write(f"credspec-runtime: {text}\n")
    log = invocation.options.get("--log")
    if not log:
        return
    import json
    import time

    entry = {
        "level": "error",
        "msg": f"credspec: {text}",
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    try:
        fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        os.write(fd, json.dumps(entry).encode() + b"\n")
        os.close(fd)
    except OSError:
        pass  # stderr has it


if __name__ == "__main__":
    main()
