"""What every container engine's set-up is: the commands and `setup.engines` know no more of it."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple, Self

from credspec.config.host import Config
from credspec.contract.start_wait import DEFAULT_SECONDS
from credspec.setup.engine_files import FileChange, read_file, remove_file, write_file
from credspec.setup.launcher import LAUNCHER_DIRECTORY


class SetupOption(NamedTuple):
    """An option of an engine's set-up command; `field` names what of the engine's set-up it sets.

    `kind` is `Path` (made absolute), `str`, or `bool` for a flag, which sets `flag_value`. What is
    not given leaves the field as it is; a `default` is shown in the help.
    """

    flag: str
    kind: type[Path | str | bool]
    help: str
    field: str
    default: str | None = None
    flag_value: bool | None = True


LAUNCHER_OPTION: Final = SetupOption(
    "--launcher-directory",
    Path,
    "[default: /usr/local/libexec/credspec]",
    field="launcher_directory",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSetup(ABC):
    """Registers the runtime with one container engine, and undoes it.

    `wait_seconds` is for how long a container's start waits for an agent or a domain that is not
    there yet.
    """

    name: ClassVar[str]
    """What the engine is called on the command line."""
    help: ClassVar[str]
    """What its command says of itself; the first line is the summary."""
    options: ClassVar[tuple[SetupOption, ...]]
    launcher_name: ClassVar[str]
    needs_gateway: ClassVar[bool] = False
    default_wait_seconds: ClassVar[float] = DEFAULT_SECONDS

    run_directory: Path
    launcher_directory: Path = LAUNCHER_DIRECTORY
    wait_seconds: float = DEFAULT_SECONDS

    @classmethod
    def from_config(
        cls, config: Config, fields: Mapping[str, Any] | None = None, wait: float | None = None
    ) -> Self:
        """Return the set-up on this host; what `fields` lacks is the configuration's or a default.

        `wait` comes before the configuration's `wait_seconds`, which comes before the engine's own.
        """
        waits = (wait, config.wait_seconds, cls.default_wait_seconds)
        seconds = next(each for each in waits if each is not None)
        return cls(**(cls.configured(config) | {"wait_seconds": seconds} | dict(fields or {})))

    @classmethod
    def configured(cls, config: Config) -> dict[str, Any]:
        """Return the fields that the host's configuration decides."""
        return {"run_directory": config.run_directory}

    @property
    def launcher(self) -> Path:
        """The executable that the engine runs as its OCI runtime."""
        return self.launcher_directory.absolute() / self.launcher_name

    @abstractmethod
    def apply(self, *, dry_run: bool = False) -> list[str]:
        """Add the runtime and return a line for each thing changed; none if all was so already.

        All that may refuse comes before the first change, and also in a dry run, which changes
        nothing.

        Raises:
            UsageError: what is there cannot be added to.
            CredspecError: `setup-read`, `setup-write`, codes of the engine.
        """

    @abstractmethod
    def undo(self, *, dry_run: bool = False) -> list[str]:
        """Remove what `apply` added and return a line for each thing changed.

        Raises:
            UsageError: what is there cannot be read.
            CredspecError: `setup-read`, `setup-write`, codes of the engine.
        """

    @abstractmethod
    def next_step(self, config: Config) -> str:
        """Return what is left to do by hand, once the engine has read its configuration."""

    def next_step_of_undo(self) -> str:
        """Return what is left to do by hand after an undo; empty if nothing is."""
        return ""

    def reload_command(self, changes: Sequence[str]) -> str:
        """Return by which command a running engine reads what `apply` changed; empty if none."""
        del changes
        return ""

    def reload(self, changes: Sequence[str]) -> list[str]:
        """Let a running engine read what `apply` changed; return what was done.

        Raises:
            CredspecError: `systemctl`.
        """
        del changes
        return []

    def _write_files(self, files: Mapping[Path, tuple[bytes, int]], *, dry_run: bool) -> list[str]:
        """Write files of `apply` (content and mode) that are not so already."""
        changes: list[str] = []
        for path, (content, mode) in files.items():
            if read_file(path) == content:
                continue
            changes.append(FileChange.of(f"wrote {path}", path))
            if not dry_run:
                write_file(path, content, mode=mode)
        return changes

    def _remove_files(
        self, paths: Sequence[Path], directories: Sequence[Path], *, dry_run: bool
    ) -> list[str]:
        """Remove files of `apply`, and directories in which nothing else is."""
        changes: list[str] = []
        for path in paths:
            if not path.exists():
                continue
            changes.append(FileChange.of(f"removed {path}", path))
            if not dry_run:
                remove_file(path)
        if not dry_run:
            for directory in directories:
                with contextlib.suppress(OSError):
                    directory.rmdir()
        return changes
