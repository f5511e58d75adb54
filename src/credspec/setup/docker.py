"""Registers the shim with dockerd and the gateway with the docker client, and undoes both."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from credspec.config.host import Config
from credspec.contract.names import RUNTIME
from credspec.errors import CredspecError, UsageError
from credspec.setup.engine import LAUNCHER_OPTION, EngineSetup, SetupOption
from credspec.setup.engine_files import FileChange, read_file, remove_file, write_file
from credspec.setup.host_copy import DIRECTORY, HostCopy
from credspec.setup.launcher import NAME, launcher_text
from credspec.setup.systemd import reload_docker

DAEMON_CONFIG: Final = Path("/etc/docker/daemon.json")
CONTEXT: Final = "credspec"
_ORIGINAL_SUFFIX: Final = ".before-credspec"


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerSetup(EngineSetup):
    """Where things go; `context` is None if no docker context is to be made.

    With `force`, a runtime or context of the same name that is not ours is replaced. `host_python`
    is for a set-up that runs in a container: the path of the host's own interpreter, which runs a
    copy of the runtime beside the launcher.
    """

    name: ClassVar = "docker"
    help: ClassVar = """Register the runtime with dockerd, and the gateway as a docker context.

    What daemon.json holds is kept. Run again, it changes nothing.
    """
    options: ClassVar = (
        SetupOption(
            "--daemon-config", Path, "dockerd's file.  [/etc/docker/daemon.json]", "daemon_config"
        ),
        LAUNCHER_OPTION,
        SetupOption(
            "--gateway-socket",
            Path,
            "[default: docker.sock in the run directory]",
            "gateway_socket",
        ),
        SetupOption("--context", str, "Name of the context.", "context", default=CONTEXT),
        SetupOption(
            "--no-context", bool, "Do not create a docker context.", "context", flag_value=None
        ),
        SetupOption("--runtime-name", str, "Name for dockerd.", "runtime_name", default=RUNTIME),
        SetupOption(
            "--default-runtime",
            bool,
            "Make it the runtime of all containers, as Swarm services need it.",
            "set_as_default",
        ),
        SetupOption("--set-as-default", bool, "The same as --default-runtime.", "set_as_default"),
        SetupOption(
            "--host-python",
            str,
            "For a set-up in a container: the host's Python (3.11 or newer), to run a copy.",
            "host_python",
        ),
        SetupOption("--force", bool, "Replace a runtime or context of the same name.", "force"),
    )
    launcher_name: ClassVar = NAME
    needs_gateway: ClassVar = True

    gateway_socket: Path
    daemon_config: Path = DAEMON_CONFIG
    context: str | None = CONTEXT
    runtime_name: str = RUNTIME
    set_as_default: bool = False
    force: bool = False
    host_python: str | None = None

    @classmethod
    def configured(cls, config: Config) -> dict[str, Any]:
        """Return the fields that the host's configuration decides."""
        return {
            "run_directory": config.run_directory,
            "gateway_socket": config.gateway_socket,
        }

    @property
    def _copy(self) -> HostCopy:
        directory = self.launcher_directory.absolute() / DIRECTORY
        return HostCopy(directory, Path(self.host_python or "/usr/bin/python3"))

    @property
    def _endpoint(self) -> str:
        return f"unix://{self.gateway_socket.absolute()}"

    @property
    def _original(self) -> Path:
        return self.daemon_config.with_name(self.daemon_config.name + _ORIGINAL_SUFFIX)

    def apply(self, *, dry_run: bool = False) -> list[str]:
        """Set everything up and return a line for each thing changed; none if all was so already.

        Raises:
            UsageError: `daemon-config-not-json`, `daemon-config-runtime`, `docker-context-taken`,
                `setup-host-python`.
            CredspecError: `setup-read`, `setup-write`, `docker-context`.
        """
        # All that may refuse comes before the first change.
        original, document = self._read()
        copy = self._copy
        launcher = launcher_text(
            self.run_directory,
            wait_seconds=self.wait_seconds,
            interpreter=None if self.host_python is None else copy.interpreter,
            package=None if self.host_python is None else copy.directory,
        )
        registered = self._runtimes(document).get(self.runtime_name)
        self._check_runtime(registered)
        self._check_context()
        changes = [] if self.host_python is None else copy.apply(dry_run=dry_run)
        changes += self._write_files({self.launcher: (launcher.encode(), 0o755)}, dry_run=dry_run)
        ours = _path_of(registered) == str(self.launcher)
        defaulted = document.get("default-runtime") == self.runtime_name or not self.set_as_default
        if not ours:
            text = f"registered the runtime {self.runtime_name} in {self.daemon_config}"
            changes.append(FileChange.of(text, self.daemon_config))
        if not defaulted:
            text = f"made {self.runtime_name} the default in {self.daemon_config}"
            changes.append(FileChange.of(text, self.daemon_config))
        if not (ours and defaulted) and not dry_run:
            self._register(document, original, ours=ours)
        return changes + self._apply_context(dry_run=dry_run)

    def undo(self, *, dry_run: bool = False) -> list[str]:
        """Undo everything and return a line for each thing changed.

        The daemon's configuration becomes what it was, byte for byte, unless another tool changed
        it meanwhile: then only our entry goes.

        Raises:
            UsageError: `daemon-config-not-json`.
            CredspecError: `setup-read`, `setup-write`, `docker-context`.
        """
        _, document = self._read()
        changes = self._undo_context(dry_run=dry_run)
        registered = self._runtimes(document).get(self.runtime_name)
        if _path_of(registered) == str(self.launcher):
            text = f"removed the runtime {self.runtime_name} from {self.daemon_config}"
            changes.append(FileChange.of(text, self.daemon_config))
            if not dry_run:
                self._unregister(document)
        changes += self._copy.undo(dry_run=dry_run)
        if not dry_run:
            remove_file(self._original)
        return changes + self._remove_files(
            [self.launcher], [self.launcher_directory], dry_run=dry_run
        )

    def next_step(self, config: Config) -> str:
        """Return how a user gets to the gateway, and how a container names its spec."""
        return (
            f"docker context use {self.context or CONTEXT} (each user of this host runs "
            "`credspec setup docker` once, which makes the context, or sets "
            f"DOCKER_HOST=unix://{self.gateway_socket}); then docker run --security-opt "
            f"credentialspec=file://NAME.json, with NAME.json in {config.spec_directory}"
        )

    def next_step_of_undo(self) -> str:
        """Return how dockerd forgets the runtime."""
        return "systemctl restart docker, since a reload keeps a runtime that has gone"

    def reload_command(self, changes: Sequence[str]) -> str:
        """Return the command by which dockerd reads a daemon.json that `apply` changed."""
        files = {change.path for change in changes if isinstance(change, FileChange)}
        return "systemctl reload docker" if self.daemon_config in files else ""

    def reload(self, changes: Sequence[str]) -> list[str]:
        """Let a dockerd that runs as a service read what `apply` changed.

        Raises:
            CredspecError: `systemctl`.
        """
        return reload_docker() if self.reload_command(changes) else []

    def _check_runtime(self, registered: object) -> None:
        path = _path_of(registered)
        if registered is None or path == str(self.launcher) or self.force:
            return
        raise UsageError.of(
            "daemon-config-runtime",
            f"the runtime {self.runtime_name} is {json.dumps(registered)}",
            where=str(self.daemon_config),
            expected=json.dumps({"path": str(self.launcher)}),
            remedy="remove that entry first, or replace it with --force",
        )

    def _register(self, document: dict[str, Any], original: bytes | None, *, ours: bool) -> None:
        if not ours:
            # What stands there before our first change is what undo restores.
            remove_file(self._original)
            if original is not None:
                write_file(self._original, original, mode=0o600)
            document["runtimes"] = self._runtimes(document) | {
                self.runtime_name: {"path": str(self.launcher)}
            }
        if self.set_as_default:
            document["default-runtime"] = self.runtime_name
        write_file(self.daemon_config, _json(document))

    def _unregister(self, document: dict[str, Any]) -> None:
        original = read_file(self._original)
        before = _parsed(original or b"")
        name = self.runtime_name
        _put_back(document["runtimes"], name, self._runtimes(before))
        if document.get("default-runtime") == name:
            _put_back(document, "default-runtime", before)
        if not document["runtimes"]:
            _put_back(document, "runtimes", before)
        if original is not None and document == before:
            write_file(self.daemon_config, original)
        elif not document and original is None:
            remove_file(self.daemon_config)
        else:
            write_file(self.daemon_config, _json(document))

    def _read(self) -> tuple[bytes | None, dict[str, Any]]:
        original = read_file(self.daemon_config)
        found = "not an object with runtimes"
        try:
            document = _parsed(original or b"")
        except (ValueError, RecursionError) as error:
            document, found = None, str(error)
        if not isinstance(document, dict) or not isinstance(document.get("runtimes"), dict | None):
            raise UsageError.of(
                "daemon-config-not-json",
                found,
                where=str(self.daemon_config),
                expected="the JSON object that dockerd reads",
                remedy="fix it first; it was not changed",
            )
        return original, document

    def _runtimes(self, document: dict[str, Any]) -> dict[str, Any]:
        runtimes: dict[str, Any] = document.get("runtimes") or {}
        return runtimes

    def _check_context(self) -> None:
        present = self._context_endpoint()
        if present is None or present == self._endpoint or self.force:
            return
        raise UsageError.of(
            "docker-context-taken",
            f"the docker context {self.context} is for {present}",
            expected=self._endpoint,
            remedy="name another with --context, or replace it with --force",
        )

    def _apply_context(self, *, dry_run: bool) -> list[str]:
        if self.context is None:
            return []
        endpoint = self._endpoint
        present = self._context_endpoint()
        if present == endpoint:
            return []
        if shutil.which("docker") is None:
            return [f"no docker client here: set DOCKER_HOST={endpoint} where there is one"]
        if not dry_run:
            verb = "create" if present is None else "update"
            described = ["--description", "Docker with credential specs"]
            _docker("context", verb, self.context, "--docker", f"host={endpoint}", *described)
        return [f"made the docker context {self.context}"]

    def _undo_context(self, *, dry_run: bool) -> list[str]:
        if self.context is None or self._context_endpoint() != self._endpoint:
            return []
        if not dry_run:
            _docker("context", "rm", "--force", self.context)
        return [f"removed the docker context {self.context}"]

    def _context_endpoint(self) -> str | None:
        if self.context is None or shutil.which("docker") is None:
            return None
        try:
            found = json.loads(_docker("context", "inspect", self.context))
            return str(found[0]["Endpoints"]["docker"]["Host"])
        except (CredspecError, ValueError, LookupError, TypeError):
            return None


def _docker(*arguments: str) -> str:
    # A DOCKER_HOST or DOCKER_CONTEXT of the caller would only make the client complain.
    environment = {
        k: v for k, v in os.environ.items() if k not in {"DOCKER_HOST", "DOCKER_CONTEXT"}
    }
    result = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, check=False, env=environment
    )
    if result.returncode != 0:
        raise CredspecError.of(
            "docker-context", result.stderr.strip(), where=f"docker {' '.join(arguments[:3])}"
        )
    return result.stdout


def _parsed(data: bytes) -> Any:
    text = data.decode("utf-8-sig")
    return json.loads(text) if text.strip() else {}


def _path_of(runtime: object) -> object:
    return runtime.get("path") if isinstance(runtime, dict) else None


def _put_back(document: dict[str, Any], key: str, before: dict[str, Any]) -> None:
    if key in before:
        document[key] = before[key]
    else:
        document.pop(key, None)


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=2).encode() + b"\n"
