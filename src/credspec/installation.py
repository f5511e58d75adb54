"""How this installation came about: its version, commit and extras, and how to add to it."""

from __future__ import annotations

import sys
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from credspec import __version__

PACKAGE_PREFIX: Final = Path("/usr/lib/credspec")
"""Where the distribution package has its Python environment."""
PACKAGED_PROGRAM: Final = Path("/usr/bin/credspec")

# One module of each extra that no other extra brings.
_EXTRAS: Final = {
    "host": "krb5",
    "aws": "boto3",
    "azure": "azure.identity",
    "vault": "hvac",
    "grpc": "grpc",
    "lab": "credspec.lab",
}


def is_packaged() -> bool:
    """Return whether this is the installation of a distribution package."""
    return Path(sys.prefix) == PACKAGE_PREFIX


def program() -> Path:
    """Return the absolute path by which services start ``credspec``; it outlives upgrades."""
    return PACKAGED_PROGRAM if is_packaged() else Path(sys.executable).with_name("credspec")


def how_to_install(extra: str) -> str:
    """Return the command that adds an extra."""
    if not is_packaged():
        return f"{sys.prefix}/bin/pip install 'credspec[{extra}]'"
    name = {"host": "credspec", "lab": "credspec-lab"}.get(extra, "credspec-extras")
    return f"install the package {name}"


def version_text() -> str:
    """Return what ``credspec --version`` prints: version, commit, extras and Python's version."""
    extras = ", ".join(name for name, module in _EXTRAS.items() if _is_there(module)) or "none"
    python = ".".join(map(str, sys.version_info[:3]))
    return (
        f"credspec {__version__} ({_commit()})\n"
        f"extras: {extras}\n"
        f"Python {python}{', distribution package' if is_packaged() else ''}"
    )


def _commit() -> str:
    try:
        commit = (resources.files("credspec") / "_commit.txt").read_text("utf-8").strip()
    except OSError:
        return "commit unknown: not built as a package"
    return f"commit {commit}"


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
