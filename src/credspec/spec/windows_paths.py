r"""Where a Windows host keeps credential specs, as pure string logic that runs anywhere.

Sources: moby's ``daemon/oci_windows.go`` for the registry key and the rules of ``file://``, and
the PowerShell module CredentialSpec for the path to Docker's root directory. Unlike the module,
this follows ``data-root``, which has replaced ``graph`` in ``daemon.json``.
"""

from __future__ import annotations

import ntpath
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING, Any, Final

from credspec.errors import InvalidSpecError

if TYPE_CHECKING:
    from collections.abc import Mapping

REGISTRY_KEY: Final = (
    r"SOFTWARE\Microsoft\Windows NT\CurrentVersion\Virtualization\Containers\CredentialSpecs"
)
"""Key below HKEY_LOCAL_MACHINE that ``registry://`` reads its values from."""

ABSOLUTE_PATH: Final = "invalid credential spec: file:// path cannot be absolute"
"""The daemon's text for an absolute path in a ``file://`` reference."""

PATH_OUTSIDE: Final = "invalid credential spec: file:// path must be under {}"
"""The daemon's text for a path that leaves the directory of specs."""

_PROGRAM_DATA: Final = r"C:\ProgramData"


def daemon_configuration(environment: Mapping[str, str]) -> PureWindowsPath:
    """Return the path of Docker's ``daemon.json``."""
    return _program_data(environment) / "Docker" / "config" / "daemon.json"


def docker_root(
    environment: Mapping[str, str], daemon_json: Mapping[str, Any] | None = None
) -> PureWindowsPath:
    r"""Return Docker's root directory.

    It is ``data-root``, or the older ``graph``, of `daemon_json`, and without either
    ``%ProgramData%\Docker``. Names in `environment` may be in any letter case, as on Windows.
    """
    for key in ("data-root", "graph"):
        value = (daemon_json or {}).get(key)
        if isinstance(value, str) and value:
            return PureWindowsPath(value)
    return _program_data(environment) / "Docker"


def credential_specs_directory(root: PureWindowsPath) -> PureWindowsPath:
    """Return the directory that ``file://`` references are relative to."""
    return root / "CredentialSpecs"


def file_reference_path(root: PureWindowsPath, value: str) -> PureWindowsPath:
    r"""Return the file that ``file://`` `value` names on a host with Docker's root at `root`.

    Raises:
        InvalidSpecError: ``spec-path-absolute`` if `value` has a drive or starts at a root,
            ``spec-path-outside`` if it leaves the directory. Components are compared, so
            ``..\CredentialSpecsX`` is outside although the text starts the same.
    """
    if is_absolute(value):
        raise InvalidSpecError.of("spec-path-absolute", ABSOLUTE_PATH)
    directory = credential_specs_directory(root)
    path = PureWindowsPath(ntpath.normpath(directory / value))
    if not path.is_relative_to(ntpath.normpath(directory)):
        raise InvalidSpecError.of("spec-path-outside", PATH_OUTSIDE.format(directory))
    return path


def is_absolute(value: str) -> bool:
    r"""Tell whether a path has a drive (even ``c:x``), a share or a root."""
    return bool(PureWindowsPath(value).anchor)


def _program_data(environment: Mapping[str, str]) -> PureWindowsPath:
    for name, value in environment.items():
        if name.lower() == "programdata" and value:
            return PureWindowsPath(value)
    return PureWindowsPath(_PROGRAM_DATA)
