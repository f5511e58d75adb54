"""Renders string expressions of the source as text with an ellipsis for what is known at run time.

An expression may have several texts, one for each branch of a conditional expression or each value
that a local name is given.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import islice, product

UNKNOWN = "…"
_MOST = 8

Bindings = Mapping[str, Sequence[str]]


def texts_of(node: ast.expr | None, names: Bindings) -> list[str]:
    """Return the texts that an expression may have; `names` are the texts of names in its scope."""
    if node is None:
        return [""]
    return list(dict.fromkeys(islice(_texts(node, names), _MOST)))


def _texts(node: ast.expr, names: Bindings) -> Iterator[str]:  # noqa: C901 - one case a kind
    match node:
        case ast.Constant(value=str() | int() | float() as value):
            yield str(value)
        case ast.Name(id=name) if name in names:
            yield from names[name]
        case ast.JoinedStr(values=values):
            yield from map("".join, product(*(texts_of(value, names) for value in values)))
        case ast.FormattedValue(value=value):
            yield from _texts(value, names)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            for first, second in product(texts_of(left, names), texts_of(right, names)):
                yield first + second
        case ast.IfExp(body=body, orelse=otherwise):
            yield from _texts(body, names)
            yield from _texts(otherwise, names)
        case ast.BoolOp(op=ast.Or(), values=values):
            for value in values:
                yield from _texts(value, names)
        case ast.Call(func=ast.Attribute(value=value, attr="lower"), args=[]):
            yield from (text.lower() for text in texts_of(value, names))
        case ast.Call(func=ast.Attribute(value=ast.Name(id=table), attr="get"), args=[_, default]):
            yield from names.get(table, [UNKNOWN])
            yield from _texts(default, names)
        case _:
            yield UNKNOWN


def local_texts(function: ast.FunctionDef | ast.AsyncFunctionDef, outer: Bindings) -> Bindings:
    """Return the texts of the names that a function assigns to, on top of those around it."""
    found: dict[str, list[str]] = {}
    for name, value in _assignments(function):
        found.setdefault(name, []).extend(texts_of(value, outer))
    return {**outer, **{name: list(dict.fromkeys(texts)) for name, texts in found.items()}}


def module_texts(module: ast.Module) -> Bindings:
    """Return the texts of a module's constants; of a table, those of its values."""
    found: dict[str, list[str]] = {}
    for node in module.body:
        for name, value in _assigned(node):
            if isinstance(value, ast.Constant | ast.JoinedStr | ast.BinOp):
                found[name] = texts_of(value, found)
            elif isinstance(value, ast.Dict):
                found[name] = [text for each in value.values for text in texts_of(each, found)]
    return found


@cache
def _assignments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[tuple[str, ast.expr]]:
    return [each for node in ast.walk(function) for each in _assigned(node)]


def _assigned(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    match node:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            yield name, value
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            yield name, value
        case ast.Assign(targets=[ast.Tuple(elts=targets)], value=value):
            branches = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
            for branch in branches:
                values = branch.elts if isinstance(branch, ast.Tuple) else []
                for index, target in enumerate(targets):
                    if isinstance(target, ast.Name):
                        # What is unpacked from elsewhere has no text here.
                        yield target.id, values[index] if values else ast.Name("")
        case _:
            return
