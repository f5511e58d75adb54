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
# Documentation that went through a word processor has longer dashes; PowerShell takes them too.
_DASHES: Final = "-\u2013\u2014\u2015"
_NAMED: Final = re.compile(
    rf"[{_DASHES}](?P<name>[A-Za-z?][^:]*)(?P<colon>:?)(?P<value>.*)", re.DOTALL
)
_ARRAY: Final = re.compile(r"@?\((?P<items>.*)\)", re.DOTALL)
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
    choices: tuple[str, ...] = ()


_PREFERENCES: Final = ("SilentlyContinue", "Stop", "Continue", "Inquire", "Ignore", "Break")
COMMON_PARAMETERS: Final = (
    Parameter("Verbose", aliases=("vb",), switch=True),
    Parameter("Debug", aliases=("db",), switch=True),
    Parameter("ErrorAction", aliases=("ea",), choices=_PREFERENCES),
    Parameter("WarningAction", aliases=("wa",), choices=_PREFERENCES),
    Parameter("InformationAction", aliases=("infa",), choices=_PREFERENCES),
    Parameter("ProgressAction", aliases=("proga",), choices=_PREFERENCES),
    Parameter("ErrorVariable", aliases=("ev",)),
    Parameter("WarningVariable", aliases=("wv",)),
    Parameter("InformationVariable", aliases=("iv",)),
    Parameter("OutVariable", aliases=("ov",)),
    Parameter("OutBuffer", aliases=("ob",)),
    Parameter("PipelineVariable", aliases=("pv",)),
)
"""What every advanced function of PowerShell takes (about_CommonParameters)."""


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
        UsageError: in PowerShell's words, with the codes `powershell-unknown`,
            `powershell-ambiguous`, `powershell-twice`, `powershell-argument-missing`,
            `powershell-argument-invalid`, `powershell-positional` and `powershell-missing`.
    """
    words: dict[str, str] = {}
    switches: dict[str, bool] = {}
    arrays: dict[str, tuple[Value, ...]] = {}
    rest = list(line)
    while rest:
        piece = rest.pop(0)
        attached: str | None = None
        named = _NAMED.fullmatch(piece)
        if named is not None:
            parameter = _named(parameters, named["name"])
            attached = named["value"] if named["colon"] else None
            if attached == "":
                attached = _next_argument(parameter, rest)
        elif piece.startswith("--"):
            raise _unknown(piece[1:])
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
        first = _next_argument(parameter, rest) if attached is None else attached
        argument = _whole_argument(parameter, first, rest)
        if parameter.array:
            arrays[parameter.name] = _values(parameter, argument)
        else:
            words[parameter.name] = _chosen(parameter, _single(parameter, argument))
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
        raise _unknown(given)
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
            expected="$true or $false",
        )
    return value


def _next_argument(parameter: Parameter, rest: list[str]) -> str:
    if rest and not _NAMED.fullmatch(rest[0]):
        return rest.pop(0)
    kind = "Management.Automation.SwitchParameter" if parameter.switch else "String"
    raise _error(
        "argument-missing",
        f"Missing an argument for parameter '{parameter.name}'. Specify a parameter of type "
        f"'System.{kind}{'[]' if parameter.array else ''}' and try again.",
        remedy="quote a value that starts with $ for the shell" if parameter.switch else "",
    )


def _whole_argument(parameter: Parameter, argument: str, rest: list[str]) -> str:
    """Join the pieces of one argument: more while a hashtable is open or a comma stands."""
    while rest and parameter.array:
        is_open = any(argument.count(a) > argument.count(b) for a, b in ("{}", "()"))
        goes_on = argument.rstrip().endswith(",") or rest[0].lstrip().startswith(",")
        if not is_open and (not goes_on or _NAMED.fullmatch(rest[0])):
            break
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
            argument = argument[1:-1]
            break
    if not argument:
        raise _error(
            "argument-invalid",
            f"Cannot bind argument to parameter '{parameter.name}' because it is an empty string.",
        )
    return argument


def _chosen(parameter: Parameter, word: str) -> str:
    if parameter.choices and word.lower() not in {c.lower() for c in parameter.choices}:
        raise _error(
            "argument-invalid",
            f"Cannot bind parameter '{parameter.name}' to the value '{word[:80]}'.",
            expected=f"one of {', '.join(parameter.choices)}",
        )
    return word


def _values(parameter: Parameter, argument: str) -> tuple[Value, ...]:
    found: list[Value] = []
    wrapped = _ARRAY.fullmatch(argument)
    if wrapped is not None:
        argument = wrapped["items"]
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
        match = _PAIR.match(body, len(body) - len(body[position:].lstrip(" ;\t\r\n")))
        if match is None:
            raise _not_understood(parameter, "@{" + body + "}")
        key, *values = match.groups()
        if key.lower() in table:
            raise _error(
                "argument-invalid", f"Duplicate keys '{key}' are not allowed in hash literals."
            )
        table[key.lower()] = next(v for v in values if v is not None).replace("''", "'")
        position = match.end()
        space = match[0][len(match[0].rstrip()) :]
        if body[position:].strip() and not body.startswith(";", position) and "\n" not in space:
            raise _not_understood(parameter, "@{" + body + "}")
    return table


def _unknown(given: str) -> UsageError:
    return _error("unknown", f"A parameter cannot be found that matches parameter name '{given}'.")


def _not_understood(parameter: Parameter, argument: str) -> UsageError:
    if argument.count("{") > argument.count("}"):
        # An unquoted semicolon ends the command for every shell but PowerShell.
        return _error(
            "argument-invalid",
            f"The hash literal was incomplete for parameter '{parameter.name}'",
            remedy="put the whole hashtable into double quotes for the shell",
        )
    return _error(
        "argument-invalid",
        f"Cannot understand '{argument[:80]}' given for parameter '{parameter.name}'.",
    )


def _error(code: str, text: str, *, expected: str = "", remedy: str = "") -> UsageError:
    return UsageError.of(f"powershell-{code}", text, expected=expected, remedy=remedy)
