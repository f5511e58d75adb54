#!/usr/bin/env python3
"""Write a manual page for each command, of its own help: man_pages.py DIRECTORY."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click

from credspec import __version__
from credspec.cli import powershell
from credspec.cli.main import credspec

_STATUS = (
    ("0", "Success."),
    ("1", "Any failure that is not listed here."),
    ("2", "The command line or the configuration is wrong."),
    ("3", "The credential spec is not valid."),
    ("4", "No domain controller answers."),
    ("5", "Not permitted."),
    ("6", "The agent does not answer."),
)
_FILES = (
    ("/etc/credspec/config.toml", "The configuration; every key is optional."),
    ("/etc/credspec/specs", "Where file:// references are looked up."),
    ("/run/credspec", "Sockets, journal and leases."),
    ("/var/log/credspec/audit.jsonl", "Every decision about a ticket."),
)


def escaped(text: str) -> str:
    """Return text as roff shows it: nothing in it is a request or an escape."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join(f"\\&{line}" if line[:1] in {".", "'"} else line for line in text.split("\n"))


def head(name: str, summary: str) -> Iterator[str]:
    """Yield the title and NAME."""
    when = time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", "0"))))
    yield f'.TH "{escaped(name.upper())}" 1 "{when}" "credspec {__version__}" "User Commands"'
    yield ".SH NAME"
    yield f"{escaped(name)} \\- {escaped(summary)}"


def foot(names: list[str]) -> Iterator[str]:
    """Yield what every page ends with."""
    for title, rows in (("EXIT STATUS", _STATUS), ("FILES", _FILES)):
        yield f".SH {title}"
        for term, text in rows:
            yield f".TP\n.B {escaped(term)}\n{escaped(text)}"
    if names:
        yield ".SH SEE ALSO"
        yield ",\n".join(f".BR {escaped(name)} (1)" for name in names).replace(",\n", " ,\n")


def paragraphs(text: str) -> Iterator[str]:
    """Yield a help text; lines after a backspace stay as they are."""
    for part in text.replace("\r", "").split("\n\n"):
        if part.startswith("\b\n"):
            yield f".PP\n.nf\n{escaped(part[2:])}\n.fi"
        elif part.strip():
            yield f".PP\n{escaped(' '.join(part.split()))}"


def command_page(command: click.Command, context: click.Context) -> str:
    """Return the page of a click command."""
    path = context.command_path
    name = path.replace(" ", "-")
    lines = [*head(name, command.get_short_help_str(200).rstrip("."))]
    usage = " ".join(command.collect_usage_pieces(context))
    lines += [".SH SYNOPSIS", f".B {escaped(path)}", escaped(usage)]
    lines += [".SH DESCRIPTION", *paragraphs(command.help or "")]
    options = [
        record for each in command.get_params(context) if (record := each.get_help_record(context))
    ]
    if options:
        lines += [".SH OPTIONS"]
        for term, text in options:
            lines += [f".TP\n.B {escaped(term)}\n{escaped(' '.join(text.split()))}"]
    subcommands = [*subcommands_of(command, context)]
    if subcommands:
        lines += [".SH COMMANDS"]
        for each, inner in subcommands:
            title = f"{inner.command_path.replace(' ', '-')}"
            lines += [f".TP\n.BR {escaped(title)} (1)\n{escaped(each.get_short_help_str(200))}"]
    if command.epilog:
        lines += [".SH EXAMPLES", *paragraphs(command.epilog.replace("Examples:\n", ""))]
    above = context.parent.command_path.replace(" ", "-") if context.parent else None
    lines += foot([above] if above else ["New-CredentialSpec", "Get-CredentialSpec"])
    return "\n".join(lines) + "\n"


def subcommands_of(
    command: click.Command, context: click.Context
) -> Iterator[tuple[click.Command, click.Context]]:
    """Yield the commands of a group."""
    if not isinstance(command, click.Group):
        return
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        if found is not None and not found.hidden:
            yield (
                found,
                click.Context(found, info_name=name, parent=context, **found.context_settings),
            )


def command_pages(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    """Yield file name and page of a command and all below it."""
    name = context.command_path.replace(" ", "-")
    yield f"{name}.1", command_page(command, context)
    for each, inner in subcommands_of(command, context):
        yield from command_pages(each, inner)


def powershell_page(name: str, text: str) -> str:
    """Return the page of a command with PowerShell's syntax."""
    title, _, rest = text.partition("\n\n")
    lines = [*head(name, title.partition(": ")[2].rstrip(".")), ".SH DESCRIPTION"]
    for part in rest.split("\n\n"):
        as_is = part.startswith("  ") or "\n  " in part
        lines += [*paragraphs(f"\b\n{part}" if as_is else part)]
    return "\n".join([*lines, *foot(["credspec", "credspec-new"])]) + "\n"


def pages() -> Iterator[tuple[str, str]]:
    """Yield file name and text of every page."""
    top = click.Context(credspec, info_name="credspec", **credspec.context_settings)
    yield from command_pages(credspec, top)
    yield "New-CredentialSpec.1", powershell_page("New-CredentialSpec", powershell.NEW_HELP)
    yield "Get-CredentialSpec.1", powershell_page("Get-CredentialSpec", powershell.GET_HELP)


if __name__ == "__main__":
    for file_name, page in pages():
        Path(sys.argv[1], file_name).write_text(page)
