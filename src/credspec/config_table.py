"""A table of the configuration, declared once: a dataclass whose annotations say what each key is.

    @dataclass(frozen=True, slots=True, kw_only=True)
    class LdapTable:
        table: ClassVar = Table("ldap", "How the host connects to domain controllers.")
        transport: Annotated[Transport, Key(choice("ldap", "ldaps"), "Port 389 or 636.")] = LDAP

The reader of the file, its error messages and docs/configuration.md are made of the declaration. A
field without a default is a key that must be there; one without a `Key` is none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cache
from inspect import get_annotations
from pathlib import Path
from typing import Any, Final, NamedTuple, get_type_hints

from credspec.errors import Problem

NAME_FORM: Final = re.compile(r"[\w.*@$:/+-]{1,128}")
PATH_FORM: Final = re.compile(r"/[\w./@+:-]{0,254}")
URL_FORM: Final = re.compile(r"https?://[\w.-]{1,255}(?::\d{1,5})?(?:/[\w./-]{0,200})?")


class NotTakenError(Exception):
    """A value is not what its key takes: pairs of what was found and what is expected.

    `found` says what was found in other words than the table does.
    """

    def __init__(self, *wrong: tuple[object, str], found: str = "") -> None:
        super().__init__()
        self.wrong = wrong
        self.found = found


def as_toml(value: object) -> str:
    """Return a value as the file has it; empty if there is no single one."""
    match value:
        case int() | float():
            return f"{value:g}"
        case str() | Path():
            return json.dumps(str(value))
        case frozenset():
            return json.dumps(sorted(value))
        case tuple():
            return json.dumps(value)
    return ""


class Kind(NamedTuple):
    """What a key takes: in words, how it is read, and how a default is written in the file.

    `read` returns the value that the program uses, or raises `NotTakenError`. `form` is what texts
    of it look like that a support bundle may show.
    """

    takes: str
    read: Callable[[Any], Any]
    write: Callable[[Any], str] = as_toml
    form: re.Pattern[str] = NAME_FORM


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key: its kind, what it means, and whether a reload of the agent takes it over.

    `name` is what it is called in the file, if the field has another name. `default` says in words
    what holds without it, where no single value does. `only_with` are another key and the value of
    it with which this one must be there; with any other value it must not. The value of one that is
    `secret`, or may lead to a secret, is left out of support bundles.
    """

    kind: Kind
    meaning: str
    name: str = ""
    default: str = ""
    reloaded: bool = False
    only_with: tuple[str, str] | None = None
    secret: bool = False


class Table(NamedTuple):
    """The name of a table in the file, empty for keys outside of tables, and what it is for."""

    name: str
    meaning: str


class DeclaredKey(NamedTuple):
    """A key as a dataclass declares it: its name in the file, its field, and its default."""

    name: str
    field: str
    key: Key
    default: object = MISSING

    @property
    def is_required(self) -> bool:
        """Whether it must be there, at least with some value of another key."""
        return self.default is MISSING or self.key.only_with is not None


def keys_of(declared: type) -> Mapping[str, DeclaredKey]:
    """Return the keys that a dataclass declares, but not its bases, by their names in the file."""
    return _keys_of(declared)  # cached; mypy takes no generic type for hashable


@cache
def _keys_of(declared: type) -> Mapping[str, DeclaredKey]:
    own = get_annotations(declared)
    hints = get_type_hints(declared, include_extras=True)
    found = {}
    for field in fields(declared):
        for key in getattr(hints[field.name], "__metadata__", ()) if field.name in own else ():
            if isinstance(key, Key):
                default = field.default
                if field.default_factory is not MISSING:
                    default = field.default_factory()
                name = key.name or field.name
                found[name] = DeclaredKey(name, field.name, key, default)
    return found


def shown_value(value: object) -> str:
    """Return what an error says was found: the value itself, shortened."""
    return repr(value)[:80]


def unknown_key(where: str, known: Collection[str]) -> Problem:
    """Return the problem of a key that no table has."""
    expected = "one of " + ", ".join(sorted(known))
    return Problem(code="config-unknown-key", found="unknown key", where=where, expected=expected)


def wrong_value(where: str, found: str, expected: str) -> Problem:
    """Return the problem of a value that its key does not take."""
    return Problem(code="config-wrong-value", found=found, where=where, expected=expected)


def read_keys(
    keys: Mapping[str, DeclaredKey],
    content: Mapping[str, Any],
    where: str,
    *,
    found: Callable[[object], str] = shown_value,
    unknown: Callable[[str, object], Problem | None] | None = None,
) -> tuple[dict[str, Any], list[Problem]]:
    """Return the values by field of what a table holds, and all that is wrong in it.

    `where` goes before the names of keys in problems, `found` says what a wrong value is called
    there. `unknown` returns what is wrong with a key that is not declared, None if nothing is.
    """
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, value in content.items():
        declared = keys.get(name)
        if declared is not None:
            try:
                values[declared.field] = declared.key.kind.read(value)
            except NotTakenError as error:
                problems += [
                    wrong_value(f"{where}{name}", error.found or found(value), expected)
                    for value, expected in error.wrong
                ]
            continue
        problem = unknown(name, value) if unknown else unknown_key(f"{where}{name}", keys)
        if problem is not None:
            problems.append(problem)
    return values, problems


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise NotTakenError((value, "a text"))
    return value


def _path(value: Any) -> Path:
    if not _text(value).startswith("/"):
        raise NotTakenError((value, "an absolute path"))
    return Path(value)


TEXT: Final = Kind("a text", _text)
PATH: Final = Kind("an absolute path", _path, form=PATH_FORM)


def text_of(
    make: Callable[[str], Any],
    expected: str,
    *,
    takes: str = "",
    form: re.Pattern[str] = NAME_FORM,
) -> Kind:
    """Return the kind of texts of which `make` makes something; None for what is not `expected`."""

    def read(value: Any) -> Any:
        found = make(_text(value))
        if found is None:
            raise NotTakenError((value, expected))
        return found

    return Kind(takes or expected, read, form=form)


def choice(*choices: str, quoted: bool = True) -> Kind:
    """Return the kind of one of several texts; without `quoted` errors name them plainly."""
    by_text = {str(each): each for each in choices}
    takes = " or ".join(f'"{each}"' for each in by_text)
    return text_of(by_text.get, takes if quoted else " or ".join(by_text), takes=takes)


def number(least: float, most: float, *, what: str = "a number", make: type[float] = float) -> Kind:
    """Return the kind of numbers in a range; with `make` as int only whole ones."""
    expected = f"{what} from {least} to {most}"

    def read(value: Any) -> float:
        is_number = isinstance(value, (int, make)) and not isinstance(value, bool)
        if not is_number or not least <= value <= most:
            raise NotTakenError((value, expected))
        return make(value)

    return Kind(expected, read)


def texts(
    make: Callable[[str], Any] = str,
    each: str = "",
    *,
    collect: Callable[[Sequence[Any]], Any] = tuple,
) -> Kind:
    """Return the kind of lists of texts of which `make` makes something, None for a wrong one.

    `each` says what each must be.
    """

    def read(value: Any) -> Any:
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise NotTakenError((value, "a list of texts"))
        made = [make(text) for text in value]
        wrong = [(text, each) for text, one in zip(value, made, strict=True) if one is None]
        if wrong:
            raise NotTakenError(*wrong)
        return collect(made)

    return Kind(f"a list; each is {each}" if each else "a list of texts", read)
