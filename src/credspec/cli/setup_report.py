"""How ``credspec setup`` says what it did, or would do."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import click

from credspec.errors import Problem

# What is to be done, for what was done.
_PLANNED: Final = {
    "enabled and started ": "enable and start ",
    "stopped and removed ": "stop and remove ",
    "wrote ": "write ",
    "registered ": "register ",
    "made ": "make ",
    "removed ": "remove ",
    "reloaded ": "reload ",
}


def report(
    changes: list[str],
    following: str = "",
    *,
    dry_run: bool,
    output: str,
    warnings: Iterable[Problem] = (),
) -> None:
    """Print the changes, what is to be done next, and warnings (on standard error)."""
    said = tuple(warnings) if changes else ()
    for problem in said:
        click.echo(f"credspec: warning: {problem.text()} [{problem.code}]", err=True)
    if output == "json":
        document = {"changes": changes, "dry_run": dry_run, "next": following}
        click.echo(json.dumps(document | {"warnings": [each._asdict() for each in said]}))
        return
    for change in changes:
        click.echo(f"dry run: would {planned(change)}" if dry_run else change)
    if not changes:
        click.echo("nothing to change")
    elif following and not dry_run:
        click.echo(f"Next: {following}", err=True)


def planned(change: str) -> str:
    """Return a line about something that was done as one about something to do."""
    for done, to_do in _PLANNED.items():
        if change.startswith(done):
            return to_do + change.removeprefix(done)
    return f"say: {change}"


def left_in_place(paths: Iterable[Path]) -> str:
    """Return what is said of what an undo leaves."""
    names = ", ".join(map(str, paths))
    return f"your own files were left: {names}; remove them if not needed" if names else ""
