"""Writes docs/configuration.md: every table and key with type, default and meaning."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from docs_reference.configuration_keys import REQUIRED, Key, configuration_keys
from docs_reference.markdown import wrapped

WORDS = Path(__file__).with_name("configuration_words.toml")
_HEAD = Path(__file__).parent / "heads/configuration.md"


def configuration_page() -> str:
    """Return the page.

    Raises:
        ValueError: keys without words, or words without a key.
    """
    words = tomllib.loads(WORDS.read_text("utf-8"))
    keys = list(configuration_keys())
    for what, there, named in (
        ("keys", {key.path for key in keys}, words["keys"].keys()),
        ("tables", {key.table for key in keys}, words["tables"].keys()),
    ):
        if there != named:
            raise ValueError(
                f"configuration_words.toml: {what} without words {sorted(there - named)}, "
                f"words without {what} {sorted(named - there)}"
            )
    parts = [_HEAD.read_text("utf-8").rstrip("\n") + "\n"]
    for table, members in groupby(keys, key=lambda key: key.table):
        parts.append(f"## `[{table}]`\n" if table else "## Keys outside of tables\n")
        parts.append(wrapped(words["tables"][table]) + "\n")
        for key in members:
            parts += _entry(key, words["keys"][key.path])
    return "\n".join(parts)


def _entry(key: Key, words: dict[str, str]) -> Iterator[str]:
    default = words.get("default") or (f"`{key.default}`" if key.default else "")
    if key.default == REQUIRED:
        default = "none, the key is required"
    if not default:
        raise ValueError(f"configuration_words.toml: {key.path} needs a default")
    yield f"### `{key.path}`\n"
    yield wrapped(words["meaning"]) + "\n"
    yield wrapped(f"- **Takes:** {key.takes.replace('*', chr(92) + '*')}", "  ")
    yield wrapped(f"- **Default:** {default}", "  ") + "\n"
