"""The rules of a credential spec, run from its published JSON Schema: every problem at once.

The schema holds the rules; this module runs it and words the outcome. Values are quoted in
problems only where a name is expected, because `PluginInput` and its surroundings may hold a
password.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from credspec.errors import Problem
from credspec.spec.file_kind import KUBERNETES_KIND, nested_spec, other_kind
from credspec.spec.parts import ACCOUNTS, HOST, accounts_of, domain_of, host_of, plain, text_of
from credspec.spec.strict_json import (
    MAX_VALUES,
    RepeatedKeyProblem,
    has_more_values,
    pointer_to,
    unsound_values,
)

if TYPE_CHECKING:
    import jsonschema_rs

_MAX_QUOTED: Final = 60
MAX_PLUGIN_INPUT: Final = 16 * 1024
"""The longest input of a plug-in, in characters; of an object, those of its JSON."""
MAX_NETBIOS_NAME: Final = 15
"""The longest NetBIOS name, in characters (MS-NBTE 2.2.1)."""

# The code and the expectation of each field that has a pattern of its own.
_PATTERNS: Final = {
    "Sid": (
        "spec-sid-invalid",
        "the SID of the domain, such as S-1-5-21-702590844-1001920913-2680819671",
    ),
    "Guid": (
        "spec-guid-invalid",
        "the GUID of the domain object, such as 56d9b66c-d746-4f87-bd26-26760cfdca2e",
    ),
    "DnsName": (
        "spec-dns-name-invalid",
        "the DNS name of the domain, such as contoso.com, without a trailing dot",
    ),
    "NetBiosName": (
        "spec-name-invalid",
        "a NetBIOS name such as CONTOSO: 1 to 15 characters, no dot and no space",  # MS-NBTE 2.2.1
    ),
    "PluginGUID": ("host-account-guid", "a class identifier as {8-4-4-4-12}, in braces"),
}
_ACCOUNT_NAME: Final = (
    "spec-name-invalid",
    'a sAMAccountName such as WebApp01: 1 to 63 characters, no space and none of "/\\[]:;|=,+*?<>@',
)
_PATTERNS_OF_NAMES: Final = {
    "Name": _ACCOUNT_NAME,
    "MachineAccountName": _ACCOUNT_NAME,
    "Scope": ("account-scope-invalid", "the DNS or the NetBIOS name of the account's domain"),
}
_NAME_PATTERN: Final = (
    "spec-name-invalid",
    "a name without control characters and path separators, and not only of dots and spaces",
)
_INPUT: Final = "PluginInput"
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_TYPES: Final = {
    "object": "an object",
    "array": "an array",
    "string": "a string",
    "number": "a number",
    "boolean": "a boolean",
    "null": "null",
}


def schema_text() -> str:
    """Return the JSON Schema (2020-12) of the credential spec as it is published."""
    return (Path(__file__).parent / "schema/credential-spec.schema.json").read_text("utf-8")


def unwrapped(document: Any) -> tuple[Any, str]:
    """Return the credential spec in a parsed file, and its JSON pointer.

    That is the file itself, or the ``credspec`` of a Kubernetes ``GMSACredentialSpec`` object.
    """
    is_wrapper = (
        isinstance(document, dict)
        and document.get("kind") == KUBERNETES_KIND
        and "CmsPlugins" not in document
    )
    return (document.get("credspec"), "/credspec") if is_wrapper else (document, "")


def described_keys(place: str) -> frozenset[str]:
    """Return the keys that the schema describes for the object with that name.

    `place` is empty for the document, or the name of the property that holds the object or, of
    ``GroupManagedServiceAccounts``, the objects.
    """
    return _described().get(place, frozenset())


def problems_of(document: Any) -> tuple[Problem, ...]:
    """Return all that is wrong with a parsed file; nothing if it holds a valid credential spec.

    Each problem's `where` is a JSON pointer. No value makes it raise, of whatever type.

    Codes: ``spec-wrong-type``, ``spec-field-missing``, ``spec-plugin-missing``,
    ``spec-accounts-empty``, ``spec-sid-invalid``, ``spec-guid-invalid``,
    ``spec-dns-name-invalid``, ``spec-name-invalid``, ``account-scope-invalid``,
    ``account-other-domain``, ``accounts-too-many``, ``host-account-guid``,
    ``host-account-input``, ``spec-other-kind`` and those of
    `credspec.spec.strict_json.unsound_values`;
    ``spec-too-many-values`` is reported alone, since looking for more would take seconds.
    """
    return validate(document).problems


class Validation(NamedTuple):
    """What is wrong with a parsed file, and whether that is its kind: then nothing else is said."""

    problems: tuple[Problem, ...]
    is_other_kind: bool = False


def validate(document: Any) -> Validation:
    """Return `problems_of` a parsed file, and whether it is no credential spec at all."""
    if has_more_values(document, MAX_VALUES):
        return Validation((_too_many_values(),))
    sound, problems = unsound_values(document)
    # A value that was replaced has its problem already; of a repeated key one value is left.
    replaced = {each.where for each in problems if not isinstance(each, RepeatedKeyProblem)}
    spec, pointer = unwrapped(sound)
    if pointer and spec is None:
        return Validation((*problems, _no_credspec(sound)))
    if not pointer and (kind := other_kind(sound)):
        return Validation((*problems, _other_kind(kind, nested_spec(sound))), is_other_kind=True)
    found = [_problem(error, pointer) for error in _validator().iter_errors(spec)]
    if not found and isinstance(spec, dict):
        between = (*_problems_of_scopes(spec), *_problems_of_input(spec))
        found += [problem._replace(where=pointer + problem.where) for problem in between]
    # Two rules for one value may say the same.
    once = dict.fromkeys(problem for problem in found if problem.where not in replaced)
    return Validation((*problems, *once))


def input_text(given: str | dict[str, Any]) -> str:
    """Return a plug-in's input as text: that of an object is its JSON."""
    return given if isinstance(given, str) else json.dumps(given, separators=(",", ":"))


def is_plugin_input(text: str) -> bool:
    """Return whether a text may be the input of a plug-in."""
    return 0 < len(text) <= MAX_PLUGIN_INPUT and _CONTROL.search(text) is None


@cache
def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(schema_text())
    return schema


@cache
def _described() -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    waiting = [("", _schema())]
    while waiting:
        place, schema = waiting.pop()
        if "properties" in schema:
            found[place] = frozenset(schema["properties"])
        waiting += [(name, below) for name, below in schema.get("properties", {}).items()]
        if "items" in schema:
            waiting.append((place, schema["items"]))
    return found


@cache
def _validator() -> jsonschema_rs.Draft202012Validator:
    import jsonschema_rs  # 5 MiB, which a host without leases does without

    return jsonschema_rs.Draft202012Validator(_schema())


def _no_credspec(document: dict[str, Any]) -> Problem:
    elsewhere = nested_spec(document)
    return Problem(
        code="spec-field-missing",
        where="/credspec",
        found=f"missing; there is one under {elsewhere}" if elsewhere else "missing",
        expected="the credential spec, at the top level of the object beside metadata",
        remedy=f"move {elsewhere} to /credspec" if elsewhere else "",
    )


def _other_kind(kind: str, nested: str) -> Problem:
    remedy = "name the file that holds the spec"
    if nested:
        remedy = f"there is a spec under {nested}: put it into a file of its own"
    return Problem(
        code="spec-other-kind",
        found=f"{kind}, not a credential spec",
        expected="an object with CmsPlugins, DomainJoinConfig and ActiveDirectoryConfig",
        remedy=remedy,
    )


def _problems_of_scopes(spec: dict[str, Any]) -> Iterator[Problem]:
    """Return what is wrong between members, which JSON Schema has no words for."""
    domain, entries = domain_of(spec), accounts_of(spec)
    dns_name, netbios = text_of(domain, "DnsName"), text_of(domain, "NetBiosName")
    if not dns_name or not entries:
        return
    own = {dns_name.lower(), netbios.lower()} - {""}
    scopes = [(index, text_of(entry, "Scope")) for index, entry in entries]
    foreign = {
        index: scope for index, scope in scopes if scope.lower().removesuffix(".") not in own
    }
    for index, scope in foreign.items():
        if "." not in scope and len(scope) > MAX_NETBIOS_NAME:
            yield Problem(
                code="account-scope-invalid",
                where=f"{ACCOUNTS}/{index}/Scope",
                found=f"{_quoted(scope)}, neither a NetBIOS name nor a DNS name with a dot",
                expected=_PATTERNS_OF_NAMES["Scope"][1],
            )
    default = text_of(domain, "MachineAccountName") or text_of(entries[0][1], "Name")
    places = [i for i, entry in entries if plain(text_of(entry, "Name")) == plain(default)]
    if default and places and all(foreign.get(index) for index in places):
        yield Problem(
            code="account-other-domain",
            where=ACCOUNTS,
            found=f"{_quoted(default)}, which containers have by default, is of the domain "
            f"{' and '.join(sorted({_quoted(foreign[index]) for index in places}))} only",
            expected=f"an entry with the scope {_quoted(dns_name)}",
            remedy="make the spec with the account's own domain, or correct the scope",
        )


def _problems_of_input(spec: dict[str, Any]) -> Iterator[Problem]:
    """Return what is wrong with the text of a plug-in's input that is an object."""
    given = (host_of(spec) or {}).get(_INPUT)
    if isinstance(given, dict) and not is_plugin_input(input_text(given)):
        yield _input_problem(f"{HOST}/{_INPUT}")


def _input_problem(where: str) -> Problem:
    """Return the problem of an input, which is never quoted: it may hold a secret."""
    return Problem(
        code="host-account-input",
        where=where,
        found="the input is empty, too long, of another form, or holds control characters",
        expected=f"1 to {MAX_PLUGIN_INPUT} printable characters; with the plug-in of credspec "
        "PROVIDER:INPUT",
    )


def _problem(error: jsonschema_rs.ValidationError, where: str) -> Problem:
    for token in error.instance_path:
        where = pointer_to(where, token)
    details = error.kind.as_dict()
    match error.kind.name:
        case "required":
            return _missing(where, details["property"], error.instance)
        case "type":
            return _wrong_type(where, details["types"], error.instance)
        case "contains":
            return _no_plugin(where)
        case "minItems" | "maxItems":
            return _number_of_accounts(where, error.instance, details["limit"])
        case "pattern" | "maxLength":
            return _misformed(where, error.instance)
    return Problem(code="spec-invalid", where=where, found=f"breaks the rule {error.kind.name!r}")


def _no_plugin(where: str) -> Problem:
    return Problem(
        code="spec-plugin-missing",
        where=where,
        found="ActiveDirectory is not in the list",
        expected='["ActiveDirectory"]',
    )


def _misformed(where: str, value: Any) -> Problem:
    field = where.rpartition("/")[2]
    if field == _INPUT:
        return _input_problem(where)
    code, expected = (_PATTERNS | _PATTERNS_OF_NAMES).get(field, _NAME_PATTERN)
    return Problem(code=code, where=where, found=_quoted(value), expected=expected)


def _number_of_accounts(where: str, entries: Any, limit: int) -> Problem:
    if not entries:
        return Problem(
            code="spec-accounts-empty",
            where=where,
            found="no account",
            expected="at least one account with Name and Scope",
        )
    return Problem(
        code="accounts-too-many",
        where=where,
        found=f"{len(entries)} entries",
        expected=f"at most {limit}",
        remedy="divide them among several credential specs",
    )


def _missing(parent: str, field: str, instance: Any) -> Problem:
    similar = [key for key in instance if key.lower() == field.lower()]
    return Problem(
        code="spec-field-missing",
        where=pointer_to(parent, field),
        found="missing",
        remedy=f"rename {_quoted(similar[0])} to {_quoted(field)}" if similar else "",
    )


def _too_many_values() -> Problem:
    return Problem(
        code="spec-too-many-values",
        found=f"more than {MAX_VALUES} values",
        expected=f"at most {MAX_VALUES} objects, arrays, texts and numbers",
        remedy="divide the accounts among several credential specs",
    )


def _wrong_type(where: str, types: list[str], instance: Any) -> Problem:
    found = _TYPES[_type_of(instance)]
    if not where:
        found = f"the document is {found}"
    # Text is shown nowhere here: it might be a whole document with a password in it.
    if isinstance(instance, int | float) and "/HostAccountConfig/" not in where:
        found += f" ({_quoted(instance)})"
    return Problem(
        code="spec-wrong-type",
        where=where,
        found=found,
        expected=" or ".join(_TYPES[name] for name in types),
    )


def _type_of(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case str():
            return "string"
        case dict():
            return "object"
        case list():
            return "array"
    return "number"


def _quoted(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_QUOTED else f"{text[: _MAX_QUOTED - 3]}..."
