"""The variables that tell programs in a container where the tickets are, and their values."""

from __future__ import annotations

from typing import Final

from credspec.agent.lease_environment import KEYTAB_ENVIRONMENT, LEASE_ENVIRONMENT


def _file(value: str) -> str:
    """Return the file that a value names: its type and further files have changed over time."""
    return value.removeprefix("FILE:").partition(":")[0]


_FILES: Final = {
    name: _file(value) for name, value in (LEASE_ENVIRONMENT | KEYTAB_ENVIRONMENT).items()
}


def is_lease_variable(name: str) -> bool:
    """Return whether a variable is one of those."""
    return name in _FILES


def is_default(entry: str) -> bool:
    """Return whether a variable has the value that credspec gives it, or gave it earlier."""
    name, _, value = entry.partition("=")
    return _FILES.get(name) == _file(value) if name in _FILES else False
