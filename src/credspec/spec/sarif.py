"""Findings as SARIF 2.1.0 (OASIS), which code hosts show beside the lines they are about."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any, Final
from urllib.parse import quote

from credspec.errors import InvalidSpecError
from credspec.spec.encoding import decode_spec
from credspec.spec.json_positions import positions
from credspec.spec.lint import Finding
from credspec.spec.rules.registry import RULES

_LINE: Final = re.compile(r"line (\d+) column (\d+)")
_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"


def sarif(version: str, files: Iterable[tuple[str, bytes, tuple[Finding, ...]]]) -> dict[str, Any]:
    """Return the SARIF log of several files, each its path, contents and findings.

    `version` is that of this program.
    """
    results: list[dict[str, Any]] = []
    codes: dict[str, None] = {}
    for path, data, findings in files:
        places = _places(data) if findings else {}
        for finding in findings:
            codes.setdefault(finding.problem.code)
            results.append(_result(path, finding, places))
    rules = [
        {
            "id": code,
            "shortDescription": {"text": RULES[code].reason if code in RULES else code},
        }
        for code in sorted(codes)
    ]
    driver = {"name": "credspec", "version": version, "rules": rules}
    return {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
        ],
    }


def _result(path: str, finding: Finding, places: dict[str, tuple[int, int]]) -> dict[str, Any]:
    problem = finding.problem
    line, column = _place(problem.where, places)
    location: dict[str, Any] = {
        "physicalLocation": {
            "artifactLocation": {"uri": quote(PurePath(path).as_posix())},
            "region": {"startLine": line, "startColumn": column},
        }
    }
    if problem.where.startswith("/"):
        location["logicalLocations"] = [{"fullyQualifiedName": problem.where, "kind": "member"}]
    return {
        "ruleId": problem.code,
        "level": str(finding.severity),
        "message": {"text": problem.text()},
        "locations": [location],
        "properties": {"fixable": finding.fixable},
    }


def _place(where: str, places: dict[str, tuple[int, int]]) -> tuple[int, int]:
    """Return the place of a pointer, or of what it should be in; the start if there is none."""
    found = _LINE.match(where)
    if found is not None:
        return int(found[1]), int(found[2])
    while where and where not in places:
        where = where.rpartition("/")[0]
    return places.get(where, (1, 1))


def _places(data: bytes) -> dict[str, tuple[int, int]]:
    try:
        return positions(decode_spec(data))
    except InvalidSpecError:
        return {}
