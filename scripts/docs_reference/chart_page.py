"""Writes the README of the Helm chart: every value, from its schema and its defaults."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "packaging/helm/credspec"
_HEAD = Path(__file__).parent / "heads/chart.md"


def chart_page() -> str:
    """Return the page."""
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    rows = [
        f"| `{name}` | `{json.dumps(default)}` | {description} |"
        for name, default, description in described_values(schema, values)
    ]
    table = ["| value | default | meaning |", "|---|---|---|", *rows]
    return _HEAD.read_text("utf-8").replace("{values}", "\n".join(table))


def described_values(
    schema: dict[str, Any], values: Any, prefix: str = ""
) -> Iterator[tuple[str, Any, str]]:
    """Yield each value's name, default and meaning, in the order of the schema.

    Raises:
        KeyError: a value without a default, or without a description.
    """
    for name, each in schema["properties"].items():
        if "properties" in each:
            yield from described_values(each, values[name], f"{prefix}{name}.")
        elif name != "global":  # of a parent chart, which means nothing here
            yield f"{prefix}{name}", values[name], each["description"]
