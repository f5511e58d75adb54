"""Registers the shim with dockerd and the gateway with the docker client, and takes both back."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from credspec.errors import CredspecError, UsageError
from credspec.runtimes.docker_gateway.create_request import RUNTIME
from credspec.runtimes.shim_launcher import NAME, launcher_text

DAEMON_CONFIG: Final = Path("/etc/docker/daemon.json")
LAUNCHER_DIRECTORY: Final = Path("/usr/local/libexec/credspec")
CONTEXT: Final = "credspec"
_ORIGINAL_SUFFIX: Final = ".before-credspec"


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerSetup:
    """Where things go; `context` is None if the docker client is to be left alone."""

    run_directory: Path
    gateway_socket: Path
    daemon_config: Path = DAEMON_CONFIG
    launcher_directory: Path = LAUNCHER_DIRECTORY
    context: str | None = CONTEXT

    @property
    def launcher(self) -> Path:
        """The executable that dockerd runs."""
        return self.launcher_directory / NAME

    @property
    def _original(self) -> Path:
        return self.daemon_config.with_name(self.daemon_config.name + _ORIGINAL_SUFFIX)

    def apply(self, *, dry_run: bool = False) -> list[str]:
        """Set everything up and return a line for each thing changed; none if all was so already.

        Raises:
            UsageError: `daemon-config-not-json`, `daemon-config-runtime`.
            CredspecError: `setup-write`, `docker-context`.
        """
        changes: list[str] = []
        original, document = self._read()
        text = launcher_text(self.run_directory)
        if _text(self.launcher) != text:
            changes.append(f"wrote {self.launcher}")
            if not dry_run:
                _write(self.launcher, text, mode=0o755)
        registered = self._runtimes(document).get(RUNTIME)
        if registered != {"path": str(self.launcher)}:
            if registered is not None:
                raise UsageError.of(
                    "daemon-config-runtime",
                    f"the runtime {RUNTIME} is {json.dumps(registered)}",
                    where=str(self.daemon_config),
                    expected=json.dumps({"path": str(self.launcher)}),
                    remedy="remove that entry first",
                )
            changes.append(f"registered the runtime {RUNTIME} in {self.daemon_config}")
            if not dry_run:
                if original is not None:
                    _write(self._original, original, mode=0o600)
                document.setdefault("runtimes", {})[RUNTIME] = {"path": str(self.launcher)}
                _write(self.daemon_config, _json(document))
        changes += self._apply_context(dry_run=dry_run)
        return changes

    def undo(self, *, dry_run: bool = False) -> list[str]:
        """Take everything back and return a line for each thing changed.

        The daemon's configuration becomes what it was, byte for byte, unless somebody else changed
        it meanwhile: then only our entry goes.

        Raises:
            UsageError: `daemon-config-not-json`.
            CredspecError: `setup-write`, `docker-context`.
        """
        changes = self._undo_context(dry_run=dry_run)
        _, document = self._read()
        if self._runtimes(document).get(RUNTIME) == {"path": str(self.launcher)}:
            changes.append(f"removed the runtime {RUNTIME} from {self.daemon_config}")
            if not dry_run:
                self._unregister(document)
        if not dry_run:
            self._original.unlink(missing_ok=True)
        if self.launcher.exists():
            changes.append(f"removed {self.launcher}")
            if not dry_run:
                self.launcher.unlink()
                with contextlib.suppress(OSError):
                    self.launcher_directory.rmdir()  # only if nothing else is in it
        return changes

    def _unregister(self, document: dict[str, Any]) -> None:
        del document["runtimes"][RUNTIME]
        if document.get("default-runtime") == RUNTIME:
            del document["default-runtime"]
        original = _text(self._original)
        before = json.loads(original) if original else {}
        if not document["runtimes"] and "runtimes" not in before:
            del document["runtimes"]
        if document == before and original is not None:
            _write(self.daemon_config, original)
        elif not document and original is None:
            self.daemon_config.unlink()
        else:
            _write(self.daemon_config, _json(document))

    def _read(self) -> tuple[str | None, dict[str, Any]]:
        original = _text(self.daemon_config)
        try:
            document = json.loads(original) if original and original.strip() else {}
        except ValueError as error:
            document = str(error)
        if not isinstance(document, dict) or not isinstance(document.get("runtimes", {}), dict):
            raise UsageError.of(
                "daemon-config-not-json",
                document if isinstance(document, str) else "not an object with runtimes",
                where=str(self.daemon_config),
                expected="the JSON object that dockerd reads",
                remedy="mend it first; it was not changed",
            )
        return original, document

    def _runtimes(self, document: dict[str, Any]) -> dict[str, Any]:
        runtimes: dict[str, Any] = document.get("runtimes") or {}
        return runtimes

    def _apply_context(self, *, dry_run: bool) -> list[str]:
        if self.context is None:
            return []
        endpoint = f"unix://{self.gateway_socket}"
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
        if self.context is None or self._context_endpoint() != f"unix://{self.gateway_socket}":
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


def _text(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return None


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _write(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replace a file atomically; one that exists keeps its mode and owner."""
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.credspec")
        temporary.write_text(text, "utf-8")
        temporary.chmod(mode)
        with contextlib.suppress(FileNotFoundError):
            present = path.stat()
            temporary.chmod(present.st_mode & 0o7777)
            os.chown(temporary, present.st_uid, present.st_gid)
        temporary.replace(path)
    except OSError as error:
        raise CredspecError.of(
            "setup-write", error.strerror or str(error), where=str(path), remedy="run it as root"
        ) from None
