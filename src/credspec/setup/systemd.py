"""Installs the agent and the gateway as systemd services, and takes them away again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

import credspec
from credspec.errors import CredspecError, NotPermittedError, UsageError
from credspec.file_replacement import replace_file

UNIT_DIRECTORY: Final = Path("/etc/systemd/system")
PACKAGED_UNITS: Final = Path("/usr/lib/systemd/system")
"""Where distribution packages have their units."""
DROP_IN: Final = "credspec-setup.conf"
"""What a packaged unit needs in addition, on this host (``UNIT.d/credspec-setup.conf``)."""
_UNIT_DIRECTORIES: Final = (UNIT_DIRECTORY, Path("/run/systemd/system"), PACKAGED_UNITS)
AGENT_UNIT: Final = "credspec-agent.service"
AGENT_SOCKET: Final = "credspec-agent.socket"
"""The socket that the agent serves; it is installed together with the agent."""
GATEWAY_UNIT: Final = "credspec-docker-gateway.service"
FETCHER_UNITS: Final = (
    "var-credentials\\x2dfetcher-krbdir.mount",
    f"{AGENT_UNIT}.d/credentials-fetcher.conf",
)
"""What lets the agent serve credentials-fetcher's interface: a mount, and a drop-in of its unit."""

_TEMPLATES: Final = {FETCHER_UNITS[0]: "credentials-fetcher-krbdir.mount"}
_RUNNING_SYSTEMD: Final = Path("/run/systemd/system")
_USERS: Final = Path("/run/user")
_DOCKER_UNIT: Final = "docker.service"


def _is_below(path: Path, tops: Iterable[Path]) -> bool:
    return any(path != top and path.is_relative_to(top) for top in tops)


def _own_directories() -> frozenset[Path]:
    """Return where this installation and its Python are, under every name that leads there."""
    found = {Path(sys.prefix), Path(sys.base_prefix), Path(credspec.__file__).parent.parent}
    interpreter = Path(sys.executable)
    while interpreter.is_symlink():  # of a virtual environment, perhaps through other links
        interpreter = interpreter.parent / interpreter.readlink()
        found.add(Path(os.path.normpath(interpreter)).parent)
    found |= {Path(os.path.realpath(each)) for each in found}
    return frozenset(path for path in found if not _is_below(path, found))


_OUR_DIRECTORIES: Final = _own_directories()
_NOT_IN_UNITS: Final = frozenset(" \t\n\"'\\%$;:")
_TMP: Final = ("/tmp", "/var/tmp")  # noqa: S108 - what PrivateTmp= replaces
_HIDDEN_FROM: Final = {
    AGENT_UNIT: _TMP,
    GATEWAY_UNIT: (*_TMP, "/run", "/var", "/home", "/root", "/mnt", "/media", "/srv"),
    FETCHER_UNITS[1]: ("/run", "/var/lib", "/home", "/root", "/mnt", "/media", "/srv"),
}
"""The host's directories that a unit's service does not see, or sees others in place of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemdSetup:
    """Which units to install, for which `program` (the absolute path of ``credspec``).

    `needed` are files and directories that the configuration names: where a unit hides them, they
    are bound into it, read-only. `hidden` names directories that all units lack and need; by
    default those of this installation, where a unit hides them. With `has_users` the configuration
    names users of rootless engines, whose runtime directories the agent needs then.

    A unit that the distribution package of this program has (in `packaged_units`) is not written
    again, so that upgrades reach it: it is enabled, with a drop-in for what it needs here.
    """

    program: Path
    units: tuple[str, ...] = (AGENT_UNIT,)
    unit_directory: Path = UNIT_DIRECTORY
    packaged_units: Path = PACKAGED_UNITS
    hidden: frozenset[Path] | None = None
    needed: frozenset[Path] = frozenset()
    has_users: bool = False

    def text(self, unit: str) -> str:
        """Return a unit's text.

        Raises:
            UsageError: `setup-program` if the program's path cannot be in a unit, `setup-path` if
                one that the configuration names cannot.
        """
        program = str(self.program)
        if not program.startswith("/") or set(program) & _NOT_IN_UNITS:
            raise UsageError.of(
                "setup-program", f"{program!r} cannot be started by systemd", where="ExecStart"
            )
        name = _TEMPLATES.get(unit, unit.rpartition("/")[2])
        text = self._template(name, program)
        lines = "".join(f"BindReadOnlyPaths={path}\n" for path in sorted({*self._bound(unit)}))
        if unit == FETCHER_UNITS[1]:
            if self.has_users:
                lines += f"BindPaths=-{_USERS}\nReadOnlyPaths=-{_USERS}/0\n"
            return text + lines
        return text.replace("PrivateTmp=yes\n", f"PrivateTmp=yes\n{lines}")

    def _template(self, name: str, program: str) -> str:
        template = resources.files("credspec.setup") / "units" / name
        return template.read_text("utf-8").replace("@PROGRAM@", program)

    def _is_packaged(self, unit: str) -> bool:
        """Return whether the distribution package has this unit, for this program."""
        try:
            packaged = (self.packaged_units / unit).read_text("utf-8")
        except OSError:
            return False
        return packaged == self._template(unit, str(self.program))

    def _files(self, unit: str) -> dict[str, str | None]:
        """Return what is to be in the unit directory: texts, None for a file that must not be.

        Raises:
            UsageError: as `text`.
        """
        drop_in = f"{unit}.d/{DROP_IN}"
        if not self._is_packaged(unit):
            return {unit: self.text(unit)} | ({} if "/" in unit else {drop_in: None})
        lines = "".join(f"BindReadOnlyPaths={path}\n" for path in sorted({*self._bound(unit)}))
        written = f"# Written by `credspec setup agent`.\n[Service]\n{lines}" if lines else None
        return {unit: None, drop_in: written}

    def _bound(self, unit: str) -> Iterator[str]:
        """Return what is bound into a unit because the unit would hide it."""
        tops = [Path(top) for top in _HIDDEN_FROM.get(unit, ())]
        if self.hidden is None:
            own = {path for path in _OUR_DIRECTORIES if _is_below(path, tops)}
        else:
            own = set(self.hidden) if unit != FETCHER_UNITS[1] else set()
        for path in sorted(own):
            _check_name(path)
            yield str(path)
        for path in self.needed:
            # A file's directory, since a file that is replaced would stay as it was.
            shown = path if path.is_dir() or path.parent in tops else path.parent
            if _is_below(shown, tops) and shown not in own:
                _check_name(shown)
                yield f"-{shown}"

    def check(self) -> None:
        """Refuse before anything is written what could not run.

        Raises:
            UsageError: as `text`; `setup-program` if there is no such program, `docker-missing` if
                the gateway is wanted and there is no Docker.
            CredspecError: `systemd-missing`.
        """
        for unit in self.units:
            self.text(unit)
        if not os.access(self.program, os.X_OK):
            raise UsageError.of(
                "setup-program",
                f"there is no program {self.program}",
                where="ExecStart",
                expected="credspec beside the Python that runs it, as pip and packages install it",
            )
        _require_systemd()
        if GATEWAY_UNIT in self.units and _state(_DOCKER_UNIT, "LoadState") != "loaded":
            raise UsageError.of(
                "docker-missing",
                f"systemd knows no {_DOCKER_UNIT}",
                where="setup",
                expected="Docker, which the gateway serves",
                remedy="install Docker first (apt install docker.io), or set up only the agent",
            )

    def apply(self, *, dry_run: bool = False) -> list[str]:
        """Install, enable and start; return a line for each thing changed, none if all was so.

        Units that are installed and do not run, as after a start that failed, are started.

        Raises:
            CredspecError: `setup-write`, `systemd-missing`, `systemctl`.
        """
        wanted = {unit: self._files(unit) for unit in self.units}
        files = {name: text for each in wanted.values() for name, text in each.items()}
        changed = [name for name, text in files.items() if self._installed(name) != text]
        new = [unit for unit in self.units if {*wanted[unit]} & {*changed} or self._is_off(unit)]
        if not dry_run and new:
            _require_systemd()
            for name in changed:
                self._write(name, files[name])
            _systemctl("daemon-reload")
        lines = [
            f"{'removed' if files[name] is None else 'wrote'} {self.unit_directory / name}"
            for name in changed
        ]
        if new and not dry_run:
            if units := list(filter(_is_unit, new)):
                _systemctl("enable", *units)
            _restart(_whose(new))
        started = _whose(new)
        for unit in self._not_running(started):
            if not dry_run:
                _systemctl("enable", "--now", unit)
            started.append(unit)
        return lines + [f"enabled and started {unit}" for unit in started]

    def _not_running(self, started: list[str]) -> list[str]:
        if self.unit_directory != UNIT_DIRECTORY or not _RUNNING_SYSTEMD.is_dir():
            return []
        others = [unit for unit in _whose(self.units) if unit not in started]
        return [unit for unit in others if _state(unit, "ActiveState") in {"inactive", "failed"}]

    def undo(self, *, dry_run: bool = False) -> list[str]:
        """Stop, disable and remove; return a line for each thing changed.

        Raises:
            CredspecError: `setup-write`, `systemd-missing`, `systemctl`.
        """
        names = [name for unit in self.units for name in self._files(unit)]
        there = [name for name in names if self._installed(name) is not None]
        packaged = [unit for unit in self.units if self._is_on(unit)]
        if (there or packaged) and not dry_run:
            _require_systemd()
            if units := list(filter(_is_unit, dict.fromkeys([*there, *packaged]))):
                _systemctl("disable", "--now", *units)
            for name in there:
                self._write(name, None)
            _systemctl("daemon-reload")
        return [f"stopped and removed {self.unit_directory / name}" for name in there] + [
            f"stopped and disabled {unit}" for unit in packaged
        ]

    def _is_on(self, unit: str) -> bool:
        """Return whether a packaged unit is enabled."""
        links = self.unit_directory.glob(f"*.wants/{unit}")
        return self._is_packaged(unit) and any(link.is_symlink() for link in links)

    def _is_off(self, unit: str) -> bool:
        return self._is_packaged(unit) and not self._is_on(unit)

    def _installed(self, unit: str) -> str | None:
        try:
            return (self.unit_directory / unit).read_text("utf-8")
        except OSError:
            return None

    def _write(self, name: str, text: str | None) -> None:
        """Write a file of the unit directory; remove it if `text` is None."""
        path = self.unit_directory / name
        try:
            if text is None:
                path.unlink(missing_ok=True)
                if not _is_unit(name):
                    with suppress(OSError):
                        path.parent.rmdir()  # others may have added to the unit, too
                return
            path.parent.mkdir(mode=0o755, exist_ok=True)
            replace_file(path, text.encode(), mode=0o644)
        except OSError as error:
            kind = NotPermittedError if isinstance(error, PermissionError) else CredspecError
            raise kind.of(
                "setup-write", error.strerror or str(error), where=str(path), remedy="run as root"
            ) from None


def _check_name(path: Path) -> None:
    if set(str(path)) & _NOT_IN_UNITS:
        raise UsageError.of(
            "setup-path",
            f"{str(path)!r} cannot be named in a unit",
            where="configuration",
            remedy="move it to a path without spaces, quotes, $ and %",
        )


def _is_unit(name: str) -> bool:
    """Return whether it is a unit of its own, not an addition to one (``UNIT.d/NAME.conf``)."""
    return "/" not in name


def _whose(names: Iterable[str]) -> list[str]:
    """Return the units that these are or belong to, each once."""
    return list(dict.fromkeys(name.partition(".d/")[0] for name in names))


def _restart(units: list[str]) -> None:
    """Restart units; a socket while its service is stopped, since systemd refuses it otherwise."""
    sockets = [unit for unit in units if unit.endswith(".socket")]
    services = {socket: socket.replace(".socket", ".service") for socket in sockets}
    for socket, service in services.items():
        _systemctl("stop", service, socket)
        _systemctl("start", socket)
    others = [unit for unit in units if unit not in services]
    _systemctl("restart", *dict.fromkeys([*services.values(), *others]))


def _require_systemd() -> None:
    if not _RUNNING_SYSTEMD.is_dir():
        raise CredspecError.of(
            "systemd-missing",
            "systemd does not run here",
            where="setup",
            remedy="run `credspec agent` under your own service manager; --dry-run prints the unit",
        )


def _state(unit: str, what: str) -> str:
    """Return a property of a unit, empty if systemd does not say."""
    command = ["systemctl", "show", "--value", f"--property={what}", "--", unit]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip()


def unit_is_there(unit: str) -> bool:
    """Return whether a unit is installed, by `SystemdSetup` or by a package."""
    return any((directory / unit).exists() for directory in _UNIT_DIRECTORIES)


def reload_docker() -> list[str]:
    """Let a dockerd that runs as a service read its configuration again; return what was done.

    Containers go on. A dockerd that does not run reads it when it starts.

    Raises:
        CredspecError: `systemctl`.
    """
    if not _RUNNING_SYSTEMD.is_dir() or _state(_DOCKER_UNIT, "ActiveState") != "active":
        return []
    _systemctl("reload", _DOCKER_UNIT)
    return [f"reloaded {_DOCKER_UNIT}"]


def _systemctl(*arguments: str) -> None:
    result = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        names = [name for name in arguments if "." in name]
        found = " ".join((result.stderr or result.stdout).split())[-400:]
        said = list(filter(None, map(_last_error, names)))
        raise CredspecError.of(
            "systemctl",
            f"{found}; {'; '.join(said)}" if said else found,
            where=f"systemctl {' '.join(arguments)}",
            remedy=" and ".join(f"`journalctl -u {name}`" for name in names)
            + "; then run the same command again",
        )


def _last_error(unit: str) -> str:
    """Return why one of credspec's units ended, from its log; empty if the journal lacks it."""
    command = ["journalctl", f"--unit={unit}", "--lines=20", "--output=cat", "--no-pager"]
    with suppress(OSError, subprocess.TimeoutExpired):
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
        for line in reversed(result.stdout.splitlines()):
            if line.startswith("credspec: "):
                return f"{unit} says: {line.removeprefix('credspec: ')[:400]}"
    return ""
