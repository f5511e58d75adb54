"""What a service's configuration names and its unit may hide: found out when it is installed."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from credspec.config.host import CONFIG_VARIABLE, DEFAULT_CONFIG_PATH, Config, load_config

# The least important first.
_UNIT_DIRECTORIES: Final = tuple(
    Path(top, "systemd/system") for top in ("/usr/lib", "/run", "/etc")
)
_KRB5_CONFIG: Final = "KRB5_CONFIG"
_KRB5_FILES: Final = (Path("/etc/krb5.conf"), Path("/etc/krb5.keytab"))


def service_environment(
    unit: str, directories: Iterable[Path] = _UNIT_DIRECTORIES
) -> dict[str, str]:
    """Return the variables that the drop-ins of a unit set (``Environment=``).

    They count also before the unit itself is installed. Specifiers and files of variables are not
    looked at.
    """
    found: dict[str, str] = {}
    drop_ins: dict[str, Path] = {}
    for directory in directories:
        drop_ins |= {path.name: path for path in (directory / f"{unit}.d").glob("*.conf")}
    for _, path in sorted(drop_ins.items()):
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            continue
        for line in lines:
            key, _, value = line.strip().partition("=")
            if key.strip() != "Environment":
                continue
            with suppress(ValueError):
                pairs = [each.partition("=") for each in shlex.split(value)]
                found = found | {name: text for name, _, text in pairs} if pairs else {}
    return found


def paths_of_configuration(environment: Mapping[str, str]) -> tuple[frozenset[Path], bool]:
    """Return the paths that a service with these variables reads, and whether it has users.

    Links are followed, since what they point to is what the service must see, too. A file that
    is not there is no error.

    Raises:
        UsageError: as `load_config`.
    """
    path = Path(environment.get(CONFIG_VARIABLE) or DEFAULT_CONFIG_PATH)
    # Without a path `load_config` would read what this process's own environment names.
    config = load_config(path) if path.exists() else Config()
    named = {path, config.spec_directory, config.keytab, *_KRB5_FILES}
    named |= {config.ca_file} if config.ca_file is not None else set()
    named |= {Path(each) for each in environment.get(_KRB5_CONFIG, "").split(":") if each}
    absolute = {each for each in named if each.is_absolute()}
    real = {Path(os.path.realpath(each)) for each in absolute}
    return frozenset(absolute | real), bool(config.policy.uids)
