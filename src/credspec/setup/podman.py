"""Registers the shim and the hooks with Podman; undoes it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from credspec.config.host import Config
from credspec.contract.names import RUNTIME
from credspec.setup.engine import LAUNCHER_OPTION, EngineSetup, SetupOption
from credspec.setup.launcher import hook_launcher_text, launcher_text

CONFIG_DIRECTORY: Final = Path("/etc/containers/containers.conf.d")
HOOKS_DIRECTORY: Final = Path("/usr/share/containers/oci/hooks.d")
NAME: Final = "credspec-runtime-podman"
HOOK_NAME: Final = "credspec-podman-hook"
# Longer than the hook itself waits for the agent's last answer.
_HOOK_SECONDS: Final = 90
# Go's regular expressions (RE2), for a container's annotations. What is merely close to ours is the
# hook's as well, which refuses it; a lease, and with it its end, is only under the right name.
_WHEN: Final = {
    "precreate": r"(?i)c\W*r\W*e\W*d\W*s\W*p\W*e\W*c\W*d\W*e\W*v|[^\x20-\x7e]|%[0-9a-f]{2}|\\",
    "poststop": r"^credspec\.dev/spec$",
}
_WRITTEN_BY: Final = "# Written by `credspec setup podman`; --undo removes it.\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodmanSetup(EngineSetup):
    """Where things go; without `hooks`, containers need ``--runtime credspec``."""

    name: ClassVar = "podman"
    help: ClassVar = (
        "Register the runtime and the hooks with Podman. Run again, it changes nothing."
    )
    options: ClassVar = (
        SetupOption(
            "--config-directory",
            Path,
            "[default: /etc/containers/containers.conf.d]",
            "config_directory",
        ),
        SetupOption(
            "--hooks-directory",
            Path,
            "[default: /usr/share/containers/oci/hooks.d]",
            "hooks_directory",
        ),
        LAUNCHER_OPTION,
        SetupOption(
            "--no-hooks",
            bool,
            "Only the runtime: podman --runtime credspec.",
            "hooks",
            flag_value=False,
        ),
    )
    launcher_name: ClassVar = NAME

    config_directory: Path = CONFIG_DIRECTORY
    hooks_directory: Path = HOOKS_DIRECTORY
    hooks: bool = True

    @property
    def hook_launcher(self) -> Path:
        """The executable of the hooks."""
        return self.launcher_directory.absolute() / HOOK_NAME

    def apply(self, *, dry_run: bool = False) -> list[str]:
        """Set everything up and return a line for each thing changed; none if all was so already.

        Raises:
            UsageError: `launcher-interpreter`.
            CredspecError: `setup-read`, `setup-write`.
        """
        return self._write_files(self._files(), dry_run=dry_run)

    def undo(self, *, dry_run: bool = False) -> list[str]:
        """Undo everything and return a line for each thing changed.

        Raises:
            CredspecError: `setup-write`.
        """
        directories = [self.launcher_directory, self.hooks_directory, self.config_directory]
        return self._remove_files(list(self._paths()), directories, dry_run=dry_run)

    def next_step(self, config: Config) -> str:
        """Return how a container names its spec."""
        return (
            "podman run --annotation credspec.dev/spec=file://NAME.json --tmpfs /run/credspec "
            f"IMAGE, with NAME.json in {config.spec_directory}"
        )

    def _paths(self) -> dict[Path, str]:
        """Return every file that can be ours, and what it is."""
        return {
            self.launcher: "launcher",
            self.config_directory / "50-credspec.conf": "config",
            self.hook_launcher: "hook launcher",
            self.hooks_directory / "credspec-precreate.json": "precreate",
            self.hooks_directory / "credspec-poststop.json": "poststop",
        }

    def _files(self) -> dict[Path, tuple[bytes, int]]:
        texts = {
            "launcher": launcher_text(
                self.run_directory, runtimes=("crun", "runc"), wait_seconds=self.wait_seconds
            ),
            "config": f'{_WRITTEN_BY}[engine.runtimes]\n{RUNTIME} = ["{self.launcher}"]\n',
        }
        if self.hooks:
            texts |= {
                "hook launcher": hook_launcher_text(
                    self.run_directory, wait_seconds=self.wait_seconds
                ),
                **{stage: self._hook(stage) for stage in ("precreate", "poststop")},
            }
        return {
            path: (texts[what].encode(), 0o755 if what.endswith("launcher") else 0o644)
            for path, what in self._paths().items()
            if what in texts
        }

    def _hook(self, stage: str) -> str:
        """Return a hook's description (oci-hooks(5))."""
        document = {
            "version": "1.0.0",
            "hook": {
                "path": str(self.hook_launcher),
                "args": [HOOK_NAME, stage],
                "timeout": _HOOK_SECONDS + math.ceil(self.wait_seconds),
            },
            "when": {"annotations": {_WHEN[stage]: "(?s).+"}},
            "stages": [stage],
        }
        return json.dumps(document, indent=2) + "\n"
