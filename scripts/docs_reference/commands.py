"""Reads every command of credspec, as click has them, for the page and the man pages."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Final, NamedTuple, NoReturn
from unittest import mock

import click

from credspec.cli import powershell
from credspec.cli.main import credspec

# Those with PowerShell's parameter syntax, which are not click's.
POWERSHELL: Final[Mapping[str, Callable[[], NoReturn]]] = {
    "New-CredentialSpec": powershell.new_credential_spec,
    "Get-CredentialSpec": powershell.get_credential_spec,
}


class Paragraph(NamedTuple):
    """A part of a help text: one that may be wrapped, or a title with lines as they are."""

    text: str
    lines: str | None = None


@contextmanager
def without_core_dump_rule() -> Iterator[None]:
    """Let commands be read by this process, whose core dumps those with secrets would forbid."""
    with mock.patch("credspec.service.process_safety.forbid_core_dumps"):
        yield


def commands() -> Iterator[click.Context]:
    """Yield a context for ``credspec`` and for every command below it."""
    yield from _below(click.Context(credspec, info_name="credspec", **credspec.context_settings))


def _below(context: click.Context) -> Iterator[click.Context]:
    yield context
    for each in sub_commands(context):
        yield from _below(each)


def sub_commands(context: click.Context) -> Iterator[click.Context]:
    """Yield a context for each command right below one."""
    command = context.command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            sub_command = command.get_command(context, name)
            if sub_command is not None and not sub_command.hidden:
                yield click.Context(sub_command, info_name=name, parent=context)


def usage(context: click.Context) -> str:
    """Return the line that shows a command's arguments."""
    return " ".join([context.command_path, *context.command.collect_usage_pieces(context)])


def options(context: click.Context) -> Iterator[tuple[str, str]]:
    """Yield each option with its forms, and what it does."""
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context)
        if isinstance(parameter, click.Option) and record is not None:
            forms, text = record
            yield forms, " ".join(text.split())


def paragraphs(text: str) -> Iterator[Paragraph]:
    """Yield the paragraphs of a help text; those that click does not wrap have lines."""
    for paragraph in inspect.cleandoc(text).replace("\f", "").split("\n\n"):
        if not paragraph.strip():
            continue
        if paragraph.startswith("\b\n"):
            title, _, rest = paragraph.removeprefix("\b\n").partition("\n")
            yield Paragraph(title, inspect.cleandoc(rest))
        else:
            yield Paragraph(" ".join(paragraph.split()))


def powershell_help(name: str) -> tuple[str, str]:
    """Return what a command with PowerShell's syntax says of itself: a sentence, and the rest."""
    shown = io.StringIO()
    with mock.patch("sys.argv", [name, "-?"]), redirect_stdout(shown), suppress(SystemExit):
        POWERSHELL[name]()
    head, _, rest = shown.getvalue().partition("\n\n")
    sentence = head.partition(": ")[2]
    return sentence[:1].upper() + sentence[1:], rest
