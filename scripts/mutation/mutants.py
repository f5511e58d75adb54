"""Small changes of a module's source, each of which a test should notice.

A change replaces one span of the source, so that all other lines stay where they are. What is only
wording is left alone: strings, annotations, and what stands in the arguments of a raised error.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any"}
_METHODS = {"fullmatch": "match", "match": "fullmatch", "startswith": "endswith"}
# Calls that are as good as their argument or their object, until it matters.
_UNWRAPPED = frozenset({"shield", "sorted", "reversed", "frozenset"})
_DROPPED = frozenset({"lower", "upper", "casefold", "strip", "rstrip", "lstrip", "copy"})


@dataclass(frozen=True, order=True)
class Mutant:
    """One change: the bytes from `start` to `end` of the source become `text`."""

    start: int
    end: int
    text: str
    line: int

    def apply(self, source: bytes) -> bytes:
        """Return the changed source."""
        return source[: self.start] + self.text.encode() + source[self.end :]

    def shown(self, source: bytes) -> str:
        """Return the change in one line."""
        before = " ".join(source[self.start : self.end].decode().split())
        return f"{before[:90]}  ->  {' '.join(self.text.split())[:90]}"


def mutants(source: bytes) -> list[Mutant]:
    """Return all changes of a module, in the order of the source."""
    found: set[Mutant] = set()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node, text in _Changes().of(ast.parse(source)):
        end_line, end_column = node.end_lineno, node.end_col_offset
        if end_line is None or end_column is None:
            continue
        start = starts[node.lineno - 1] + node.col_offset
        mutant = Mutant(start, starts[end_line - 1] + end_column, text, node.lineno)
        if source[mutant.start : mutant.end].decode() != text and _compiles(mutant.apply(source)):
            found.add(mutant)
    return sorted(found)


def sample(found: list[Mutant], number: int, seed: str) -> list[Mutant]:
    """Return so many of the changes by chance, the same ones for the same seed."""
    if number >= len(found):
        return found
    return sorted(random.Random(seed).sample(found, number))  # noqa: S311 - it is to be repeatable


def _compiles(source: bytes) -> bool:
    try:
        compile(source, "mutant", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True


class _Changes:
    """A walk over a module that yields nodes and what each may become."""

    def of(self, node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
        match node:
            case ast.JoinedStr() | ast.Import() | ast.ImportFrom():
                return
            case (
                ast.If(test=ast.Name(id="TYPE_CHECKING"))
                | ast.Assign(targets=[ast.Name(id="TYPE_CHECKING")])
            ):
                return
            case ast.Raise():
                yield node, "pass"  # its arguments are wording
                return
            case ast.arg() | ast.AnnAssign(value=None):
                return
            case ast.expr():
                for text in self._expression(node):
                    yield node, f"({text})"
            case ast.stmt():
                for text in self._statement(node):
                    yield node, text
        for child in self._children(node):
            yield from self.of(child)

    def _children(self, node: ast.AST) -> Iterator[ast.AST]:
        for name, value in ast.iter_fields(node):
            if name in {"annotation", "returns", "decorator_list", "type_params"}:
                continue
            if isinstance(node, ast.Dict) and name == "keys":
                continue
            values = value if isinstance(value, list) else [value]
            yield from (child for child in values if isinstance(child, ast.AST))

    def _statement(self, node: ast.stmt) -> Iterator[str]:
        match node:
            case ast.Expr(value=ast.Constant()):
                return  # a docstring
            case ast.Expr() | ast.AugAssign() | ast.Delete():
                yield "pass"
            case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
                yield "pass"
            case ast.Return(value=ast.expr()) if not _is_none(node.value):
                yield "return None"
            case ast.Continue():
                yield "break"
                yield "pass"
            case ast.Break():
                yield "continue"

    def _expression(self, node: ast.expr) -> Iterator[str]:
        match node:
            case ast.Constant(value=bool()):
                yield str(not node.value)
            case ast.Constant(value=int() | float() as number):
                yield repr(number + 1)
            case ast.Compare():
                yield from self._comparison(node)
            case ast.UnaryOp(op=ast.Not()):
                yield ast.unparse(node.operand)
            case ast.BoolOp() | ast.BinOp():
                yield from self._operation(node)
            case ast.IfExp():
                yield ast.unparse(node.body)
                yield ast.unparse(node.orelse)
            case ast.Set(elts=[_, _, *_]):
                for rest in _each_left_out(node.elts):
                    yield ast.unparse(ast.Set(rest))
            case ast.Call():
                yield from self._call(node)

    def _operation(self, node: ast.BoolOp | ast.BinOp) -> Iterator[str]:
        if isinstance(node, ast.BoolOp):
            other = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
            yield ast.unparse(ast.BoolOp(other, node.values))
            for rest in _each_left_out(node.values):
                yield ast.unparse(ast.BoolOp(node.op, rest) if len(rest) > 1 else rest[0])
        elif type(node.op) in _OPERATORS:
            yield ast.unparse(ast.BinOp(node.left, _OPERATORS[type(node.op)](), node.right))
            if isinstance(node.op, ast.BitOr):
                yield ast.unparse(node.left)

    def _comparison(self, node: ast.Compare) -> Iterator[str]:
        for at, operator in enumerate(node.ops):
            for other in _COMPARISONS[type(operator)]:
                changed = [*node.ops[:at], other(), *node.ops[at + 1 :]]
                yield ast.unparse(ast.Compare(node.left, changed, node.comparators))

    def _call(self, node: ast.Call) -> Iterator[str]:
        match node.func:
            case ast.Name(id=name) | ast.Attribute(attr=name) if name in _UNWRAPPED and node.args:
                yield ast.unparse(node.args[0])
            case ast.Name(id=name) if name in _FUNCTIONS:
                other = ast.Name(_FUNCTIONS[name])
                yield ast.unparse(ast.Call(other, node.args, node.keywords))
            case ast.Attribute(value=value, attr=name) if name in _METHODS:
                method = ast.Attribute(value, _METHODS[name])
                yield ast.unparse(ast.Call(method, node.args, node.keywords))
            case ast.Attribute(value=value, attr=name) if name in _DROPPED:
                yield ast.unparse(value)


def _each_left_out(nodes: list[ast.expr]) -> Iterator[list[ast.expr]]:
    """Return the list without its first, its second, and so on."""
    for left_out in range(len(nodes)):
        yield [node for at, node in enumerate(nodes) if at != left_out]


def _is_none(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
