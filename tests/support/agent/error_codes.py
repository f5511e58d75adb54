"""All error codes in the source, each with the class of the errors that carry it."""

from __future__ import annotations

import ast
import functools
import importlib
from collections.abc import Iterator
from pathlib import Path

import credspec
from credspec import errors
from credspec.errors import CredspecError

SOURCE = Path(credspec.__file__).parent


@functools.cache
def raised(*packages: str) -> set[tuple[type[CredspecError], str]]:
    """Class and code of every ``SomeError.of("code", ...)`` and ``SomeError(Problem(...))``.

    The class is the nearest one of `credspec.errors`.

    `packages` are folders or modules below ours; all of it without any. A code that is chosen by an
    expression counts with every constant of it.
    """
    paths = [path for each in packages or ("",) for path in _modules(SOURCE / each)]
    return {found for path in paths for found in _raised_in(path)}


def _modules(path: Path) -> list[Path]:
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def _raised_in(path: Path) -> Iterator[tuple[type[CredspecError], str]]:
    if path.name == "__main__.py":
        return
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        if isinstance(node.func, ast.Attribute) and node.func.attr == "of":
            name, codes = ast.unparse(node.func.value), _constants(node.args[0])
        else:
            name, codes = ast.unparse(node.func), list(_codes_of_problems(node.args))
        cls = getattr(module, name, None)
        if isinstance(cls, type) and issubclass(cls, CredspecError):
            for code in codes:
                yield next(each for each in cls.__mro__ if each.__module__ == errors.__name__), code


def _codes_of_problems(arguments: list[ast.expr]) -> Iterator[str]:
    for argument in arguments:
        for node in ast.walk(argument):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Problem":
                for keyword in node.keywords:
                    if keyword.arg == "code":
                        yield from _constants(keyword.value)


def _constants(node: ast.expr) -> list[str]:
    return [
        each.value
        for each in ast.walk(node)
        if isinstance(each, ast.Constant) and isinstance(each.value, str)
    ]
