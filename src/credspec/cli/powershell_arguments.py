"""PowerShell's parameter syntax, so that lines from documentation for Windows can be pasted.

Names in any letter case and as unambiguous prefixes, ``-Switch``, ``-Name:value``, arrays ``a,b``
and hashtables ``@{AccountName='x'; Domain='y'}`` (about_Parameters, about_Hash_Tables).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from credspec.errors import UsageError

Value = str | dict[str, str]
"""A word, or a hashtable with its keys in lower case."""

_SWITCH_VALUES: Final = {"$true": True, "$false": False, "true": True, "false": False}
_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<hash>@\{(?P<body>[^}]*)\})
      | '(?P<single>(?:[^']|'')*)'
      | "(?P<double>[^"]*)"
      | (?P<word>[^\s,;'"{}]+)
      | (?P<comma>,)
    )\s*""",
    re.VERBOSE,
)
_PAIR: Final = re.compile(r"\s*(\w+)\s*=\s*(?:'((?:[^']|'')*)'|\"([^\"]*)\"|([^\s;'\"]+))\s*")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a command; at most one is the first positional one."""

    name: str
    aliases: tuple[str, ...] = ()
    switch: bool = False
    array: bool = False
    positional: bool = False
    mandatory: bool = False


@dataclass(frozen=True, slots=True)
class Arguments:
    """What was given, under the parameters' own names."""

    words: dict[str, str]
    switches: dict[str, bool]
    arrays: dict[str, tuple[Value, ...]]


def parse_arguments(parameters: Sequence[Parameter], line: Sequence[str]) -> Arguments:
    """Read a command line as PowerShell would.

    `line` is as the shell split it; a hashtable may come in several pieces.

    Raises:
        UsageError: in PowerShell's words, `powershell-parameter-unknown`, `-ambiguous`, `-twice`,
            `-argument-missing`, `-argument-invalid`, `-positional` and `-missing`.
    """
    words: dict[str, str] = {}
    switches: dict[str, bool] = {}
    arrays: dict[str, tuple[Value, ...]] = {}
    rest = list(line)
    while rest:
        piece = rest.pop(0)
        attached: str | None = None
        if re.match(r"-[A-Za-z?]", piece):
            name, colon, value = piece[1:].partition(":")
            parameter = _named(parameters, name)
            attached = value if colon and value else None
        else:
            rest.insert(0, piece)
            parameter = _positional(parameters, words, piece)
        if {parameter.name} & (words.keys() | switches.keys() | arrays.keys()):
            raise _error(
                "twice",
                f"Cannot bind parameter because parameter '{parameter.name}' is specified more "
                "than once.",
            )
        if parameter.switch:
            switches[parameter.name] = _switch(parameter, attached)
            continue
        if attached is not None:
            rest.insert(0, attached)
        argument = _take_argument(parameter, rest)
        if parameter.array:
            arrays[parameter.name] = _values(parameter, argument)
        else:
            words[parameter.name] = _single(parameter, argument)
    missing = [p.name for p in parameters if p.mandatory and p.name not in words]
    if missing:
        raise _error(
            "missing",
            "Cannot process command because of one or more missing mandatory parameters: "
            f"{' '.join(missing)}.",
        )
    return Arguments(words, switches, arrays)


def _named(parameters: Sequence[Parameter], given: str) -> Parameter:
    wanted = given.lower()
    exact = [p for p in parameters if wanted in {n.lower() for n in (p.name, *p.aliases)}]
    found = exact or [
        p for p in parameters if any(n.lower().startswith(wanted) for n in (p.name, *p.aliases))
    ]
    if not found:
        raise _error(
            "unknown", f"A parameter cannot be found that matches parameter name '{given}'."
        )
    if len(found) > 1:
        raise _error(
            "ambiguous",
            f"Parameter cannot be processed because the parameter name '{given}' is ambiguous. "
            f"Possible matches include: {' '.join('-' + p.name for p in found)}.",
        )
    return found[0]


def _positional(parameters: Sequence[Parameter], words: dict[str, str], piece: str) -> Parameter:
    for parameter in parameters:
        if parameter.positional and parameter.name not in words:
            return parameter
    raise _error(
        "positional", f"A positional parameter cannot be found that accepts argument '{piece}'."
    )


def _switch(parameter: Parameter, attached: str | None) -> bool:
    if attached is None:
        return True
    value = _SWITCH_VALUES.get(attached.lower())
    if value is None:
        raise _error(
            "argument-invalid",
            f"Cannot convert '{attached}' to the type of switch parameter '{parameter.name}'.",
        )
    return value


def _take_argument(parameter: Parameter, rest: list[str]) -> str:
    """Take the pieces of one argument: more while a hashtable is open or a comma stands."""
    if not rest or re.fullmatch(r"-[A-Za-z]\w*(?::.*)?", rest[0]):
        raise _error("argument-missing", f"Missing an argument for parameter '{parameter.name}'.")
    argument = rest.pop(0)
    while (
        rest
        and parameter.array
        and (
            argument.count("{") > argument.count("}")
            or argument.rstrip().endswith(",")
            or rest[0].lstrip().startswith(",")
        )
    ):
        argument = f"{argument} {rest.pop(0)}"
    return argument


def _single(parameter: Parameter, argument: str) -> str:
    if argument.startswith("@{"):
        raise _error(
            "argument-invalid",
            f"Cannot convert the hashtable given for parameter '{parameter.name}' to a string.",
        )
    for quote in "'\"":
        if len(argument) > 1 and argument[0] == argument[-1] == quote:
            return argument[1:-1]
    return argument


def _values(parameter: Parameter, argument: str) -> tuple[Value, ...]:
    found: list[Value] = []
    position = 0
    expects_value = True
    while position < len(argument):
        match = _TOKEN.match(argument, position)
        if match is None or (match["comma"] is not None) == expects_value:
            raise _not_understood(parameter, argument)
        position = match.end()
        expects_value = not expects_value
        if match["hash"] is not None:
            found.append(_hashtable(parameter, match["body"]))
        elif match["comma"] is None:
            texts = (match["single"], match["double"], match["word"])
            text = next(t for t in texts if t is not None)
            found.append(text.replace("''", "'") if match["single"] is not None else text)
    if expects_value:
        raise _not_understood(parameter, argument)
    return tuple(found)


def _hashtable(parameter: Parameter, body: str) -> dict[str, str]:
    table: dict[str, str] = {}
    # A quoted value may hold a semicolon, so pairs are read one after the other.
    position = 0
    while body[position:].strip(" ;\t\n"):
        match = _PAIR.match(
            body, position + len(body[position:]) - len(body[position:].lstrip(" ;"))
        )
        if match is None:
            raise _not_understood(parameter, "@{" + body + "}")
        key, *values = match.groups()
        table[key.lower()] = next(v for v in values if v is not None).replace("''", "'")
        position = match.end()
        if body[position:].strip() and not body[position:].lstrip().startswith(";"):
            raise _not_understood(parameter, "@{" + body + "}")
    return table


def _not_understood(parameter: Parameter, argument: str) -> UsageError:
    return _error(
        "argument-invalid",
        f"Cannot understand '{argument[:80]}' given for parameter '{parameter.name}'.",
    )


def _error(code: str, text: str) -> UsageError:
    return UsageError.of(f"powershell-{code}", text)
