"""What is wrong or doubtful about a credential spec, all of it at once.

Errors are what the published schema, and the rules of JSON below it, forbid: such a document is
refused everywhere. Warnings are documents that are accepted here and still will not do what their
author wanted, here or on Windows or Kubernetes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final, NamedTuple

from credspec.errors import InvalidSpecError, Problem
from credspec.spec.encoding import check_text, decode_spec
from credspec.spec.fixes import fixed
from credspec.spec.rules.registry import OF_OBJECTS, OF_SPECS
from credspec.spec.rules.rule import RuleSet
from credspec.spec.strict_json import parse_json, unsound_values
from credspec.spec.validation import unwrapped, validate

MAX_FINDINGS: Final = 100
"""Past this many findings there is one more that tells their number."""


class Severity(StrEnum):
    """Whether a document is refused, or only doubtful."""

    ERROR = "error"
    WARNING = "warning"


class Finding(NamedTuple):
    """A problem with its severity, and whether `credspec.spec.fixes.fixed` repairs it."""

    severity: Severity
    problem: Problem
    fixable: bool = False


def lint_bytes(data: bytes) -> tuple[Finding, ...]:
    """Return all findings about the contents of a file; never raises."""
    try:
        text = decode_spec(data)
        check_text(text)
        document = parse_json(text)
    except InvalidSpecError as error:
        return tuple(Finding(Severity.ERROR, problem) for problem in error.problems)
    return lint_document(document)


def lint_document(document: Any) -> tuple[Finding, ...]:
    """Return all findings about a parsed document, errors first; never raises.

    The document may be a Kubernetes ``GMSACredentialSpec``; pointers lead into it.
    """
    findings = _findings(document)
    if findings:
        repaired, _ = fixed(document)
        left = Counter(_likeness(finding) for finding in _findings(repaired))
        findings = [finding._replace(fixable=left[_likeness(finding)] == 0) for finding in findings]
    shown = findings[:MAX_FINDINGS]
    if len(findings) > MAX_FINDINGS:
        rest = findings[MAX_FINDINGS:]
        worst = min(finding.severity for finding in rest)
        more = Problem(code="spec-more-problems", found=f"{len(rest)} more problems")
        shown.append(Finding(worst, more))
    return tuple(shown)


def _findings(document: Any) -> list[Finding]:
    problems, is_other_kind = validate(document)
    findings = [Finding(Severity.ERROR, problem) for problem in problems]
    if is_other_kind:
        return findings
    sound, _ = unsound_values(document)
    spec, pointer = unwrapped(sound)
    if pointer:
        findings += _warnings(OF_OBJECTS, sound, "")
    if isinstance(spec, dict):
        findings += _warnings(OF_SPECS, spec, pointer)
    return findings


def _warnings(rules: Iterable[RuleSet], document: dict[str, Any], pointer: str) -> list[Finding]:
    """Return what rules find in a document whose own pointer is given."""
    return [
        Finding(Severity.WARNING, problem._replace(where=pointer + problem.where))
        for each in rules
        for problem in each.check(document)
    ]


def _likeness(finding: Finding) -> tuple[str, str, str]:
    """What two findings have in common that are about the same, wherever an entry has moved."""
    problem = finding.problem
    return problem.code, problem.found, re.sub(r"/\d+", "/*", problem.where)
