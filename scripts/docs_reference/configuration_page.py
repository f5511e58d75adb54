"""Writes docs/configuration.md: every table and key with type, default and meaning."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from docs_reference.configuration_keys import (
    REQUIRED,
    Key,
    configuration_keys,
    table_meanings,
)
from docs_reference.markdown import wrapped

_HEAD = Path(__file__).parent / "heads/configuration.md"


def configuration_page() -> str:
    """Return the page.

    Raises:
        ValueError: a key without a meaning, or without a default.
    """
    parts = [_HEAD.read_text("utf-8").rstrip("\n") + "\n"]
    meanings = table_meanings()
    for table, members in groupby(configuration_keys(), key=lambda key: key.table):
        parts.append(f"## `[{table}]`\n" if table else "## Keys outside of tables\n")
        parts.append(wrapped(meanings[table]) + "\n")
        for key in members:
            parts += _entry(key)
    return "\n".join(parts)


def _entry(key: Key) -> Iterator[str]:
    default = key.default_words or (f"`{key.default}`" if key.default else "")
    if key.default == REQUIRED:
        default = "none, the key is required"
    if not default or not key.meaning:
        raise ValueError(f"{key.path} needs a meaning, and a default at least in words")
    yield f"### `{key.path}`\n"
    yield wrapped(key.meaning) + "\n"
    yield wrapped(f"- **Takes:** {key.takes.replace('*', chr(92) + '*')}", "  ")
    yield wrapped(f"- **Default:** {default}", "  ")
    taken_over = "yes" if key.reloaded else "no, a restart"
    yield f"- **Taken over by a reload:** {taken_over}\n"
