"""Finds every stable error code in the source, with the texts it is raised with.

Codes are found where an error or a `Problem` is made (``X.of(...)``, ``Problem(...)``), where a
table names them (`REFUSALS`, patterns of fields), where the shim's errors are made (a code and a
text) and at the end of texts in brackets. A helper that is given the code is followed to its
callers.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from docs_reference.text_templates import (
    UNKNOWN,
    Bindings,
    local_texts,
    module_texts,
    texts_of,
)

SOURCE = Path(__file__).parents[2] / "src" / "credspec"
CODE = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_IN_BRACKETS = re.compile(r"(.*\S) \[([a-z0-9-]+)\]", re.DOTALL)
_FIELDS = ("code", "found", "where", "expected", "remedy")
_ERRORS = re.compile(r"(?:\w+Error|kind|cls)\.of|\w*Problem")
_OF_CODE_AND_TEXT = re.compile(r"ShimError|NotYetError|kind|super\.__init__")
_DEEPEST = 3
_PAIR = 2
_WITH_CODES_IN_TEXTS = (
    "agent/doors/credentials_fetcher/",
    "contract/",
    "gateway/",
    "run/",
    "setup/",
    "shim/",
)
_SHOWN = ("code", "found", "expected", "remedy")
# The code of these is computed; what it may be is found elsewhere or listed in error_words.toml.
_COMPUTED = frozenset(
    {
        ("errors.py", "of"),  # the class itself
        ("errors.py", "from_json"),
        ("kerberos/kdc_errors.py", "error_of"),  # from its table of refusals
        ("kerberos/tickets.py", "_check_clock"),  # the same
        ("spec/validation.py", "_misformed"),  # from its tables of patterns
        ("run/process_lease.py", "in_host_mounts"),  # the shim's
        ("gateway/create_request.py", "check_options_given"),  # the shim's
        ("agent/doors/http/lease_fields.py", "_tickets"),  # the shim's
        ("cli/run.py", "_kind"),  # the shim's
        ("spec/rules/tickets.py", "option_problem"),  # the shim's
        ("run/process_lease.py", "process_lease"),  # the shim's
        ("kubernetes/csi/agent_leases.py", "_check_kind"),  # the shim's
        ("contract/agent_client.py", "_refusal"),  # the agent's
        ("contract/errors.py", "__init__"),  # the class itself
        ("contract/lease.py", "take"),  # the same error again
        ("shim/carriers.py", "_check_annotations_count"),  # as others of that module
    }
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """One way in which a code is raised; `kind` is the class of the error, if it is known."""

    code: str
    found: str
    expected: str = ""
    remedy: str = ""
    kind: str = ""
    module: str


class UnknownCodeError(Exception):
    """A code is computed in a way that is not understood here."""


def raised_codes(families: Mapping[str, Sequence[str]], source: Path = SOURCE) -> list[Raised]:
    """Return all that is raised, in the order of the source; `families` are computed codes."""
    trees = {
        path.relative_to(source).as_posix(): ast.parse(path.read_text("utf-8"))
        for path in sorted(source.rglob("*.py"))
        if not path.name.endswith("_pb2.py")
    }
    bases = _bases_of_errors(trees)
    found = [
        replace(each, kind=bases.get(each.kind, each.kind))
        for module, tree in trees.items()
        for each in _Module(module, tree, families).raised()
    ]
    return list(dict.fromkeys(found))


def _bases_of_errors(trees: Mapping[str, ast.Module]) -> dict[str, str]:
    """Return the class in errors.py that each error class defined elsewhere is one of."""
    parents = {
        node.name: _name(node.bases[0])
        for module, tree in trees.items()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.bases and module != "errors.py"
    }
    found = {}
    for name in parents:
        base = name
        while base in parents:
            base = parents[base]
        found[name] = base
    return found


class _Module:
    def __init__(self, name: str, tree: ast.Module, families: Mapping[str, Sequence[str]]) -> None:
        self.name, self._tree, self._families = name, tree, families
        self._names = module_texts(tree)
        self._all_calls = list(_calls_in(tree, None))
        self._codes_of_classes = dict(_codes_of_classes(tree))

    def raised(self) -> Iterator[Raised]:
        yield from self._of_calls()
        yield from self._of_tables()
        if self.name.startswith(("contract/", "shim/", "run/")):
            yield from self._of_codes_and_texts()
        if self.name.startswith(_WITH_CODES_IN_TEXTS) or self.name == "cli/main.py":
            yield from self._of_texts()

    def _of_calls(self) -> Iterator[Raised]:
        for function, call in self._all_calls:
            if _ERRORS.fullmatch(_name(call.func)):
                yield from self._expanded(function, call)

    def _expanded(self, function: Function | None, call: ast.Call) -> Iterator[Raised]:
        """Yield what a call raises, once for each call of the function around it if need be."""
        fields = _arguments(call)
        if "code" not in fields:
            return
        needed = _names_in(fields[name] for name in _SHOWN if name in fields)
        for names in self._scopes(function, needed, depth=0):
            yield from self._made(function, call, names)

    def _scopes(
        self, function: Function | None, needed: set[str], depth: int
    ) -> Iterator[Bindings]:
        """Yield the texts of names in a function, for each call of it if parameters matter."""
        if function is None:
            yield self._names
            return
        own = local_texts(function, self._names)
        callers = [
            (outer, each)
            for outer, each in self._all_calls
            if _name(each.func).rpartition(".")[2] == function.name and outer is not function
        ]
        if not needed & _parameters(function) or not callers or depth > _DEEPEST:
            yield own
            return
        for outer, each in callers:
            bound = _bound(function, each)
            for names in self._scopes(outer, _names_in(bound.values()), depth + 1):
                given = {name: texts_of(value, names) for name, value in bound.items()}
                yield {**local_texts(function, {**self._names, **given}), **given}

    def _made(self, function: Function | None, call: ast.Call, names: Bindings) -> Iterator[Raised]:
        fields = _arguments(call)
        kind = _name(call.func).partition(".")[0]
        own = self._codes_of_classes.get(call) if _name(fields["code"]) == "self.code" else None
        for code in [own] if own else texts_of(fields["code"], names):
            for each in self._families.get(code, [code]):
                if not CODE.fullmatch(each):
                    if (self.name, function.name if function else "") in _COMPUTED:
                        continue
                    raise UnknownCodeError(
                        f"src/credspec/{self.name}:{call.lineno}: the code {code!r} is computed; "
                        "list its values under [families] in error_words.toml"
                    )
                yield Raised(
                    code=each,
                    found=_joined(fields.get("found"), names),
                    expected=_joined(fields.get("expected"), names),
                    remedy=_joined(fields.get("remedy"), names),
                    kind=kind if kind.endswith("Error") else "",
                    module=self.name,
                )

    def _of_tables(self) -> Iterator[Raised]:
        """Yield what tables of the module name: refusals of a KDC, patterns of fields, codes."""
        for node in ast.walk(self._tree):
            match node:
                case ast.Call(func=ast.Name(id="Refusal"), args=[code, found, remedy, *more]) if (
                    self.name == "kerberos/kdc_errors.py"
                ):
                    yield Raised(
                        code=_joined(code, self._names),
                        found=_joined(found, self._names),
                        remedy=_joined(remedy, self._names),
                        kind=_name(more[0]) if more else "NotPermittedError",
                        module=self.name,
                    )
                case ast.Tuple(elts=[ast.Constant(value=str(code)), expected]) if (
                    self.name == "spec/validation.py" and "-" in code and CODE.fullmatch(code)
                ):
                    text = _joined(expected, self._names)
                    yield Raised(code=code, found=UNKNOWN, expected=text, module=self.name)
                case _:
                    continue

    def _of_codes_and_texts(self) -> Iterator[Raised]:
        """Yield the shim's errors, which have a code and a text."""
        for function, call in self._all_calls:
            if not _OF_CODE_AND_TEXT.fullmatch(_name(call.func)) or len(call.args) < _PAIR:
                continue
            names = local_texts(function, self._names) if function else self._names
            for code in texts_of(call.args[0], names):
                if CODE.fullmatch(code):
                    for text in texts_of(call.args[1], names):
                        yield self._of_text(code, text)
                elif (self.name, function.name if function else "") not in _COMPUTED:
                    raise UnknownCodeError(f"src/credspec/{self.name}:{call.lineno}: {code!r}")

    def _of_texts(self) -> Iterator[Raised]:
        """Yield what texts name that end in a code in brackets."""
        for function, node in _strings_in(self._tree, None):
            names = local_texts(function, self._names) if function else self._names
            for text in texts_of(node, names):
                match = _IN_BRACKETS.fullmatch(text)
                if match:
                    yield self._of_text(match[2], match[1])

    def _of_text(self, code: str, text: str) -> Raised:
        cause, _, remedy = text.rpartition("; ")
        found, _, expected = cause.partition("; expected ")
        if remedy.startswith("expected "):
            found, expected, remedy = cause, remedy.removeprefix("expected "), ""
        return Raised(
            code=code,
            found=(found or remedy).removeprefix("credspec: "),
            expected=expected,
            remedy=remedy if found else "",
            module=self.name,
        )


def _codes_of_classes(tree: ast.Module) -> Iterator[tuple[ast.Call, str]]:
    """Yield the calls in each class that has a code of its own, as lint rules do, with the code."""
    for node in tree.body:
        for statement in node.body if isinstance(node, ast.ClassDef) else ():
            match statement:
                case ast.Assign(targets=[ast.Name(id="code")], value=ast.Constant(value=str(code))):
                    yield from ((n, code) for n in ast.walk(node) if isinstance(n, ast.Call))
                case _:
                    continue


def _calls_in(
    node: ast.AST, function: Function | None
) -> Iterator[tuple[Function | None, ast.Call]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call):
            yield function, child
        yield from _calls_in(child, child if isinstance(child, Function) else function)


def _strings_in(
    node: ast.AST, function: Function | None
) -> Iterator[tuple[Function | None, ast.expr]]:
    for child in ast.iter_child_nodes(node):
        is_text = isinstance(child, ast.Constant) and isinstance(child.value, str)
        if is_text or isinstance(child, ast.JoinedStr | ast.BinOp):
            yield function, cast("ast.expr", child)
        else:
            yield from _strings_in(child, child if isinstance(child, Function) else function)


def _name(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=name):
            return f"{_name(value)}.{name}"
        case ast.Call(func=ast.Name(id="super")):
            return "super"
    return ""


def _arguments(call: ast.Call) -> dict[str, ast.expr]:
    """Return the fields of a problem that a call names, by position or by keyword."""
    return {
        **dict(zip(_FIELDS, call.args, strict=False)),
        **{keyword.arg: keyword.value for keyword in call.keywords if keyword.arg},
    }


def _bound(function: Function | None, call: ast.Call) -> dict[str, ast.expr]:
    """Return what a call gives to each parameter of a function, defaults included."""
    if function is None:
        return {}
    positional = [each.arg for each in (*function.args.posonlyargs, *function.args.args)]
    if positional[:1] in (["self"], ["cls"]):
        positional = positional[1:]
    defaults = function.args.defaults
    bound = dict(zip(positional[len(positional) - len(defaults) :], defaults, strict=True))
    for each, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
        if default is not None:
            bound[each.arg] = default
    bound.update(zip(positional, call.args, strict=False))
    bound.update({k.arg: k.value for k in call.keywords if k.arg})
    return bound


def _parameters(function: Function | None) -> set[str]:
    if function is None:
        return set()
    arguments = function.args
    listed = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    return {each.arg for each in listed}


def _names_in(nodes: Iterable[ast.expr]) -> set[str]:
    return {n.id for node in nodes for n in ast.walk(node) if isinstance(n, ast.Name)}


def _joined(node: ast.expr | None, names: Bindings) -> str:
    return " / ".join(text for text in texts_of(node, names) if text)
