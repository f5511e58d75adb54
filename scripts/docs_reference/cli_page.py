"""Writes docs/cli.md: every command with its arguments and options, as click has them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from docs_reference.commands import (
    POWERSHELL,
    commands,
    options,
    paragraphs,
    powershell_help,
    usage,
    without_core_dump_rule,
)
from docs_reference.markdown import escaped, wrapped

_HEAD = Path(__file__).parent / "heads/cli.md"


def cli_page() -> str:
    """Return the page."""
    parts = [_HEAD.read_text("utf-8").rstrip("\n") + "\n"]
    with without_core_dump_rule():
        for context in commands():
            parts += _entry(context)
    for name in POWERSHELL:
        sentence, rest = powershell_help(name)
        parts += [f"## `{name}`\n", wrapped(sentence) + "\n", _block(rest)]
    return "\n".join(parts)


def _entry(context: click.Context) -> Iterator[str]:
    command = context.command
    level = 2 if context.parent is None or context.parent.parent is None else 3
    yield f"{'#' * level} `{context.command_path}`\n"
    yield _block(usage(context))
    yield from _paragraphs(command.help or "")
    for forms, text in options(context):
        yield wrapped(f"- `{forms}`: {escaped(text)}", "  ")
    yield ""
    if isinstance(command, click.Group) and context.parent is not None:
        names = command.list_commands(context)
        yield wrapped("Commands: " + ", ".join(f"`{name}`" for name in names) + ".") + "\n"
    yield from _paragraphs(command.epilog or "")


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in paragraphs(text):
        if paragraph.lines is None:
            yield wrapped(escaped(paragraph.text)) + "\n"
        else:
            yield escaped(paragraph.text) + "\n"
            if paragraph.lines:
                yield _block(paragraph.lines)


def _block(text: str) -> str:
    lines = (f"    {line}".rstrip() for line in text.rstrip("\n").split("\n"))
    return "\n".join(lines) + "\n"
