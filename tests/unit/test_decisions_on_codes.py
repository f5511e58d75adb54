"""Code decides by the class or a field of an error, which mypy checks, not by its code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src/credspec"

# Functions that may compare codes, each with its reason.
ALLOWED = {
    ("cli/run.py", "run"): "the agent's answer has the code alone, which the API keeps stable",
    (
        "agent/doors/http/passing_errors.py",
        "_is_unknown_domain",
    ): "an answer of DNS among outages: one stable code, raised in one line",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def decisions(tree: ast.Module) -> Iterator[str]:
    """Yield the name of each outermost function that compares a code with fixed texts."""
    texts = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value and _has_text(node.value)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    for node in tree.body:
        members = node.body if isinstance(node, ast.ClassDef) else [node]
        for member in members:
            name = member.name if isinstance(member, Function) else "<module>"
            if _decides(member, texts):
                yield name


def _decides(member: ast.stmt, texts: set[str]) -> bool:
    codes = _names_of_codes(member)
    return any(_is_decision(node, codes, texts) for node in ast.walk(member))


def _names_of_codes(member: ast.stmt) -> set[str]:
    """Return the names that a function gives to codes, and to sets of them."""
    codes: set[str] = set()
    for node in ast.walk(member):
        if isinstance(node, ast.Assign) and _is_code(node.value, codes):
            codes |= {t.id for t in node.targets if isinstance(t, ast.Name)}
        if isinstance(node, ast.comprehension) and _is_code(node.iter, codes):
            codes |= {n.id for n in ast.walk(node.target) if isinstance(n, ast.Name)}
    return codes


def _is_decision(node: ast.AST, codes: set[str], texts: set[str]) -> bool:
    match node:
        case ast.Compare(left=left, comparators=others):
            sides = [left, *others]
            fixed = any(_has_text(side) or _is_named(side, texts) for side in sides)
            return fixed and any(_is_code(side, codes) for side in sides)
        case ast.Call(func=ast.Attribute(value=value, attr="startswith" | "endswith")):
            return _is_code(value, codes)
        case ast.Match(subject=subject, cases=cases):
            return _is_code(subject, codes) and any(_has_text(case.pattern) for case in cases)
    return False


def _is_code(node: ast.expr, codes: set[str]) -> bool:
    match node:
        case ast.Attribute(attr="code"):
            return True
        case ast.Name(id=name):
            return name in codes
        case ast.SetComp(elt=elt) | ast.ListComp(elt=elt) | ast.GeneratorExp(elt=elt):
            return _is_code(elt, codes)
    return False


def _has_text(node: ast.AST) -> bool:
    return any(isinstance(n, ast.Constant) and isinstance(n.value, str) for n in ast.walk(node))


def _is_named(node: ast.expr, names: set[str]) -> bool:
    return isinstance(node, ast.Name) and node.id in names


@pytest.mark.parametrize(
    "body",
    [
        'return error.code == "a-b"',
        'return "a-b" != error.problems[0].code',
        'return error.code in {"a", "b"}',
        "return error.code in TABLE",
        'code = error.code\n    return code == "a"',
        "return {p.code for p in error.problems} <= TABLE",
        'codes = {p.code for p in error.problems}\n    return [c for c in codes if c == "a"]',
        'return error.code.startswith("ldap-")',
        'match error.code:\n        case "a":\n            return 1',
    ],
)
def test_a_decision_on_a_code_is_found(body: str) -> None:
    tree = ast.parse(f'TABLE = frozenset({{"x", "y"}})\n\ndef decide(error):\n    {body}\n')
    assert list(decisions(tree)) == ["decide"]


@pytest.mark.parametrize(
    "body",
    [
        "return UsageError.of(error.code, error.text)",
        "return error.code == api.TIMEOUT",
        "return error.code in NUMBERS",
        'return isinstance(error, UsageError) and error.where == "policy"',
    ],
)
def test_what_is_no_decision_on_a_code(body: str) -> None:
    tree = ast.parse(f"NUMBERS = frozenset({{1, 2}})\n\ndef decide(error):\n    {body}\n")
    assert list(decisions(tree)) == []


def test_nothing_but_the_named_functions_decides_by_codes() -> None:
    found = {
        (path.relative_to(SOURCE).as_posix(), name)
        for path in sorted(SOURCE.rglob("*.py"))
        for name in decisions(ast.parse(path.read_text("utf-8")))
    }
    assert found == ALLOWED.keys()
