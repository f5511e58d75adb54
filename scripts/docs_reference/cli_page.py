"""Writes docs/cli.md: every command with its arguments and options, as click has them."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import NoReturn
from unittest import mock

import click

from credspec.cli import powershell
from credspec.cli.main import credspec
from docs_reference.markdown import escaped, wrapped

_HEAD = Path(__file__).parent / "heads/cli.md"


def cli_page() -> str:
    """Return the page."""
    parts = [_HEAD.read_text("utf-8").rstrip("\n") + "\n"]
    # Commands that read secrets forbid core dumps of their process, which is not one of them here.
    with mock.patch("credspec.agent.process_safety.forbid_core_dumps"):
        for context in commands():
            parts += _entry(context)
    for name, run in (
        ("New-CredentialSpec", powershell.new_credential_spec),
        ("Get-CredentialSpec", powershell.get_credential_spec),
    ):
        text = _shown(name, run)
        _, _, rest = text.partition("\n\n")
        parts += [f"## `{name}`\n", wrapped(_first_line(text)) + "\n", _block(rest)]
    return "\n".join(parts)


def commands() -> Iterator[click.Context]:
    """Yield a context for ``credspec`` and for every command below it."""
    yield from _below(click.Context(credspec, info_name="credspec", **credspec.context_settings))


def _below(context: click.Context) -> Iterator[click.Context]:
    yield context
    command = context.command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            sub_command = command.get_command(context, name)
            if sub_command is not None and not sub_command.hidden:
                yield from _below(click.Context(sub_command, info_name=name, parent=context))


def _entry(context: click.Context) -> Iterator[str]:
    command = context.command
    level = 2 if context.parent is None or context.parent.parent is None else 3
    yield f"{'#' * level} `{context.command_path}`\n"
    yield _block(" ".join([context.command_path, *command.collect_usage_pieces(context)]))
    yield from _paragraphs(command.help or "")
    records = [
        record
        for each in command.get_params(context)
        if isinstance(each, click.Option) and (record := each.get_help_record(context))
    ]
    for options, text in records:
        yield wrapped(f"- `{options}`: {escaped(' '.join(text.split()))}", "  ")
    yield ""
    if isinstance(command, click.Group) and context.parent is not None:
        names = command.list_commands(context)
        yield wrapped("Commands: " + ", ".join(f"`{name}`" for name in names) + ".") + "\n"
    yield from _paragraphs(command.epilog or "")


def _paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs of a help text; those that click does not wrap become blocks."""
    for paragraph in inspect.cleandoc(text).replace("\f", "").split("\n\n"):
        if not paragraph.strip():
            continue
        if paragraph.startswith("\b\n"):
            title, _, rest = paragraph.removeprefix("\b\n").partition("\n")
            yield escaped(title) + "\n"
            if rest:
                yield _block(inspect.cleandoc(rest))
        else:
            yield wrapped(escaped(" ".join(paragraph.split()))) + "\n"


def _shown(name: str, run: Callable[[], NoReturn]) -> str:
    """Return what a command with PowerShell's syntax says of itself."""
    shown = io.StringIO()
    with mock.patch("sys.argv", [name, "-?"]), redirect_stdout(shown), suppress(SystemExit):
        run()
    return shown.getvalue()


def _first_line(text: str) -> str:
    sentence = text.partition("\n")[0].partition(": ")[2]
    return sentence[:1].upper() + sentence[1:]


def _block(text: str) -> str:
    lines = (f"    {line}".rstrip() for line in text.rstrip("\n").split("\n"))
    return "\n".join(lines) + "\n"
