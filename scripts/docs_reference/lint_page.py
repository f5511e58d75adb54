"""Writes docs/lint.md: what lint does, and every rule from the registry."""

from __future__ import annotations

from pathlib import Path

from credspec.spec.rules.registry import RULES

_HEAD = Path(__file__).parent / "heads/lint.md"


def lint_page() -> str:
    """Return the page."""
    rows = [
        f"| `{rule.code}` | {rule.reason} | {'yes' if rule.fixable else ''} |"
        for rule in RULES.values()
    ]
    table = ["| warning | reason | `--fix` |", "|---|---|---|", *rows]
    return _HEAD.read_text("utf-8").replace("{rules}", "\n".join(table))
