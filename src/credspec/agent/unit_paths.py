"""What a service's configuration names and its unit may hide: found out when it is installed."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from credspec.agent.config import CONFIG_VARIABLE, DEFAULT_CONFIG_PATH, load_config

_KRB5_CONFIG: Final = "KRB5_CONFIG"
_KRB5_FILES: Final = (Path("/etc/krb5.conf"), Path("/etc/krb5.keytab"))


def service_environment(unit: str) -> dict[str, str]:
    """Return the variables that a unit and its drop-ins set (``Environment=``), none if unknown."""
    shown = subprocess.run(
        ["systemctl", "show", "--value", "--property=Environment", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    with suppress(ValueError):
        pairs = (each.partition("=") for each in shlex.split(shown.stdout))
        return {name: value for name, _, value in pairs}
    return {}


def paths_of_configuration(environment: Mapping[str, str]) -> tuple[frozenset[Path], bool]:
    """Return the paths that a service with these variables reads, and whether it has users.

    Links are followed, since what they point to is what the service must see, too. A file that
    is not there is no error.

    Raises:
        UsageError: as `load_config`.
    """
    path = Path(environment.get(CONFIG_VARIABLE) or DEFAULT_CONFIG_PATH)
    config = load_config(path if path.exists() else None)
    named = {path, config.spec_directory, config.keytab, *_KRB5_FILES}
    named |= {config.ca_file} if config.ca_file is not None else set()
    named |= {Path(each) for each in environment.get(_KRB5_CONFIG, "").split(":") if each}
    absolute = {each for each in named if each.is_absolute()}
    real = {Path(os.path.realpath(each)) for each in absolute}
    return frozenset(absolute | real), bool(config.policy.uids)
