"""What the shell completes beyond commands and options: specs, labs, plug-ins."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

import click
from click.shell_completion import CompletionItem

_PATH_SIGNS: Final = (".", "/", "~")
_MOST: Final = 500


def complete_spec(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the specs of the spec directory, and files; a path is completed as such."""
    del context, parameter
    # The first one lets the shell complete files where no name fits.
    files = [CompletionItem(incomplete, type="file")]
    if incomplete.startswith(_PATH_SIGNS) or "/" in incomplete:
        return files
    from credspec.config.host import load_config
    from credspec.errors import CredspecError
    from credspec.spec.spec_directory import SpecDirectory

    names: set[str] = set()
    with suppress(CredspecError, OSError):
        names |= set(SpecDirectory(load_config().spec_directory).names())
    if not names:
        return files
    with suppress(OSError):
        names |= {path.name for path in Path().glob("*.json")}
    return files + _beginning(names, incomplete)


def complete_lab(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the names of the labs of this machine."""
    del context, parameter
    from credspec.lab.domain import all_labs

    return _beginning({lab.name for lab in all_labs()}, incomplete)


def complete_plugin(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return ``PLUGIN=`` for the plug-ins that have names."""
    del context, parameter
    from credspec.spec.host_account_plugins import PLUGINS

    return _beginning({f"{name}=" for name in PLUGINS}, incomplete)


def complete_windows_word(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the numbers and commands of Windows that ``check --explain`` knows."""
    del context, parameter
    from credspec.doctor.windows_words import WINDOWS_WORDS

    return _beginning({entry.word for entry in WINDOWS_WORDS}, incomplete)


def _beginning(names: set[str], incomplete: str) -> list[CompletionItem]:
    fitting = sorted(name for name in names if name.startswith(incomplete) and name.isprintable())
    return [CompletionItem(name) for name in fitting[:_MOST]]
