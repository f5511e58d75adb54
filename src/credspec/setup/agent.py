"""What ``credspec setup agent`` makes on a host beside the units, and what its undo leaves."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from credspec.config.host import DEFAULT_CONFIG_PATH, Config
from credspec.errors import CredspecError, NotPermittedError, Problem
from credspec.setup.systemd import SystemdSetup

_OF_UNITS: Final = Path("/run/credspec-host/users.json")
"""What the agent's unit lets `credspec agent --prepare` write; like krb5.conf it is made again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSetup:
    """The agent on this host: its units, and the directories of its configuration.

    Undo removes directories only if nothing is in them.
    """

    systemd: SystemdSetup
    config: Config

    def apply(self, *, dry_run: bool = False) -> list[str]:
        """Make the spec directory, install and start the units; return a line for each change.

        Raises:
            UsageError: as `SystemdSetup.text` and `SystemdSetup.check`.
            CredspecError: `setup-write`, `systemd-missing`, `systemctl`.
        """
        if self.systemd.apply(dry_run=True) and not dry_run:
            self.systemd.check()
        changes = _make_directory(self.config.spec_directory, dry_run=dry_run)
        return changes + self.systemd.apply(dry_run=dry_run)

    def undo(self, *, dry_run: bool = False) -> list[str]:
        """Stop and remove the units and what is empty; return a line for each change.

        Raises:
            CredspecError: `setup-write`, `systemd-missing`, `systemctl`.
        """
        changes = self.systemd.undo(dry_run=dry_run)
        if not changes:
            return []  # an agent under another service manager may use them
        specs = self.config.spec_directory
        candidates = [specs]
        if specs.parent == DEFAULT_CONFIG_PATH.parent:
            candidates.append(specs.parent)
        if count_leases(self.config) == 0:
            run = self.config.run_directory
            candidates += [self.config.leases_directory, self.config.process_leases_directory]
            candidates += [self.config.volumes_directory]
            candidates += [self.config.journal_directory, run, _OF_UNITS.parent]
            if not dry_run:
                for path in (_OF_UNITS, run / "krb5.conf"):
                    with suppress(OSError):
                        path.unlink(missing_ok=True)
        return changes + _remove_empty(candidates, dry_run=dry_run)

    def left(self) -> list[Path]:
        """Return what undo leaves, since somebody may want it: configuration, specs and logs."""
        kept = (DEFAULT_CONFIG_PATH, self.config.spec_directory, self.config.audit_log.parent)
        return [path for path in kept if path.exists()]


def count_leases(config: Config) -> int:
    """Return how many containers and programs have tickets, 0 where this user may not look."""
    try:
        return sum(name.endswith(".json") for name in os.listdir(config.journal_directory))  # noqa: PTH208
    except OSError:
        return 0


def lease_warnings(config: Config) -> tuple[Problem, ...]:
    """Return what is to be said before something is removed that leases need."""
    number = count_leases(config)
    if not number:
        return ()
    return (
        Problem(
            code="setup-leases-exist",
            found=f"{number} container(s) or program(s) have tickets",
            where=str(config.journal_directory),
            remedy="they keep them until they end, but without the agent they are not renewed, and "
            "without the runtime they cannot be started again; `credspec status` lists them",
        ),
    )


def _make_directory(path: Path, *, dry_run: bool) -> list[str]:
    missing = [each for each in (path, *path.parents) if not each.exists()]
    if not dry_run:
        for each in reversed(missing):
            try:
                each.mkdir()
                each.chmod(0o755)  # whatever the umask is: the agent trusts root's own only
            except OSError as error:
                kind = NotPermittedError if isinstance(error, PermissionError) else CredspecError
                raise kind.of(
                    "setup-write",
                    error.strerror or str(error),
                    where=str(each),
                    remedy="run as root",
                ) from None
    return [f"made {path}"] if missing else []


def _remove_empty(candidates: list[Path], *, dry_run: bool) -> list[str]:
    removed: list[Path] = []
    for path in candidates:
        try:
            if any(each not in removed for each in path.iterdir()):
                continue
            if not dry_run:
                path.rmdir()
        except OSError:
            continue
        removed.append(path)
    return [f"removed {path}" for path in removed]
