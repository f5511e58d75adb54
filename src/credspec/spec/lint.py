"""What is wrong or doubtful about a credential spec, all of it at once.

Errors are what the published schema, and the rules of JSON below it, forbid: such a document is
refused everywhere. Warnings are documents that are accepted here and still will not do what their
author wanted, here or on Windows or Kubernetes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any, Final, NamedTuple

from credspec.errors import InvalidSpecError, Problem
from credspec.spec.encoding import check_text, decode_spec
from credspec.spec.file_kind import is_object_name
from credspec.spec.fixes import fixed
from credspec.spec.parts import (
    ACCOUNTS,
    DOMAIN,
    HOST,
    accounts_of,
    domain_of,
    host_of,
    names_look_swapped,
    nearest,
    nearest_key,
    plain,
    tables_of,
    text_of,
    twins_missing,
)
from credspec.spec.strict_json import parse_json, pointer_to, unsound_values
from credspec.spec.validation import described_keys, problems_of, unwrapped

MAX_FINDINGS: Final = 100
"""Past this many findings there is one more that tells their number."""

_MAX_NAME: Final = 14  # of the sAMAccountName's 15 one is the $
_ACCOUNT_SID: Final = re.compile(r"(?i)(S-1-5-21-\d+-\d+-\d+)-\d+")
_SECRET: Final = re.compile(r"(?i)(?:^|[;,\s\"'{])(?:password|passwd|pwd)\s*[=:]")
_ARN: Final = re.compile(r"(?i)arn:aws")
_RANCHER: Final = "e4781092-f116-4b79-b55e-28eb6a224e26"
_AZURE: Final = "ccc2a336-d7f3-4818-a213-272b7924213e"


class Severity(StrEnum):
    """Whether a document is refused, or only doubtful."""

    ERROR = "error"
    WARNING = "warning"


class Rule(NamedTuple):
    """A rule of this module: why it is one, and whether `fixed` repairs what it finds."""

    reason: str
    fixable: bool = False


RULES: Final = {
    "lint-trailing-dollar": Rule("Windows adds the $ itself and expects names without it.", True),
    "lint-name-too-long": Rule("A gMSA's sAMAccountName has at most 15 characters with its $."),
    "lint-name-question-mark": Rule(
        "The PowerShell module writes ASCII and puts a question mark for every other character."
    ),
    "lint-sid-of-account": Rule(
        "The SID is the domain's, without the account's last number.", True
    ),
    "lint-dns-names-swapped": Rule(
        "PowerShell modules from before 2018 swapped DnsName and DnsTreeName.", True
    ),
    "lint-dns-name-single-label": Rule(
        "A name without a dot is usually a NetBIOS name, which DNS does not know."
    ),
    "lint-domain-field-missing": Rule("Windows needs all fields of DomainJoinConfig."),
    "lint-guid-braces": Rule("The GUID of a domain is written without braces.", True),
    "lint-machine-account-missing": Rule("It names the account that a container uses.", True),
    "lint-machine-account-unlisted": Rule(
        "The default account must be among the accounts that the container may use."
    ),
    "lint-scope-twin-missing": Rule(
        "Programs use the DNS and the NetBIOS name of the domain: each needs an entry.", True
    ),
    "lint-scope-unknown": Rule(
        "A scope that is no name of the spec's domain is valid only for a trusted domain."
    ),
    "lint-account-twice": Rule("The same account with the same scope is listed twice.", True),
    "lint-key-unknown": Rule("Windows ignores keys it does not know, and Kubernetes drops them."),
    "lint-key-misspelt": Rule("Windows ignores keys it does not know; this is nearly one.", True),
    "lint-plugin-guid-braces": Rule("Windows starts a plug-in only by its GUID in braces.", True),
    "lint-plugin-field-missing": Rule("Without it Windows does not know which plug-in to start."),
    "lint-ccg-version": Rule("1 is the only version of the plug-in interface.", True),
    "lint-plugin-input-secret": Rule("A credential spec is no place for a password."),
    "lint-plugin-input-form": Rule("The plug-in with this GUID takes input of another form."),
    "lint-plugin-input-object": Rule("Kubernetes and Windows hold PluginInput as a string."),
    "lint-object-name": Rule(
        "Kubernetes accepts only lower-case letters, digits, - and . in names."
    ),
    "lint-compose-credential-spec": Rule(
        "Docker Compose on Linux ignores credential_spec: the container starts without identity."
    ),
    "lint-no-spec": Rule("The file is of a kind that can name a credential spec, and names none."),
}
"""Every rule that leads to a warning, by its stable code."""


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
    findings = [Finding(Severity.ERROR, problem) for problem in problems_of(document)]
    if any(finding.problem.code == "spec-other-kind" for finding in findings):
        return findings
    sound, _ = unsound_values(document)
    spec, pointer = unwrapped(sound)
    if pointer:
        findings += [Finding(Severity.WARNING, problem) for problem in _object_name(sound)]
    if isinstance(spec, dict):
        findings += [
            Finding(Severity.WARNING, problem._replace(where=pointer + problem.where))
            for problem in _warnings(spec)
        ]
    return findings


def _object_name(document: dict[str, Any]) -> Iterator[Problem]:
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if isinstance(name, str) and not is_object_name(name):
        yield _problem(
            "lint-object-name",
            "/metadata/name",
            repr(name[:60]),
            "lower-case letters, digits, - and ., such as contoso-webapp01",
            "rename it, also where pods and roles name it",
        )


def _likeness(finding: Finding) -> tuple[str, str, str]:
    """What two findings have in common that are about the same, wherever an entry has moved."""
    problem = finding.problem
    return problem.code, problem.found, re.sub(r"/\d+", "/*", problem.where)


def _warnings(spec: dict[str, Any]) -> Iterator[Problem]:
    for rule in _ALL:
        yield from rule(spec)


def _problem(code: str, where: str, found: str, expected: str = "", remedy: str = "") -> Problem:
    return Problem(code=code, where=where, found=found, expected=expected, remedy=remedy)


def _names(spec: dict[str, Any]) -> Iterator[Problem]:
    named = [(f"{DOMAIN}/MachineAccountName", text_of(domain_of(spec), "MachineAccountName"))]
    named += [(f"{ACCOUNTS}/{i}/Name", text_of(entry, "Name")) for i, entry in accounts_of(spec)]
    for where, name in named:
        shown = repr(name[:60])
        if name.endswith("$"):
            wanted = repr(name.rstrip("$")[:60])
            yield _problem("lint-trailing-dollar", where, shown, wanted, "leave the $ out")
        if len(name.rstrip("$")) > _MAX_NAME:
            yield _problem(
                "lint-name-too-long",
                where,
                f"{shown}, {len(name.rstrip('$'))} characters",
                f"at most {_MAX_NAME} without the $",
                "give the sAMAccountName, not the display name",
            )
        if "?" in name:
            yield _problem(
                "lint-name-question-mark",
                where,
                shown,
                "the account's name",
                "write the characters that were lost, or make the spec again with credspec new",
            )


def _domain_fields(spec: dict[str, Any]) -> Iterator[Problem]:
    domain = domain_of(spec)
    sid = _ACCOUNT_SID.fullmatch(text_of(domain, "Sid"))
    if sid is not None:
        yield _problem(
            "lint-sid-of-account",
            f"{DOMAIN}/Sid",
            f"{sid[0]}, the SID of an account",
            f"{sid[1]}, the domain's",
            "leave the last number out",
        )
    guid = text_of(domain, "Guid")
    if guid.startswith("{"):
        yield _problem(
            "lint-guid-braces", f"{DOMAIN}/Guid", guid[:60], guid.strip("{}")[:60], "no braces"
        )
    missing = ("Sid", "Guid", "DnsTreeName", "NetBiosName")
    for field in missing if domain else ():
        if field not in domain:
            yield _problem(
                "lint-domain-field-missing",
                f"{DOMAIN}/{field}",
                "missing",
                "what the directory says",
                "make the spec again with credspec new, or ask credspec check",
            )


def _domain_names(spec: dict[str, Any]) -> Iterator[Problem]:
    domain = domain_of(spec)
    if names_look_swapped(spec):
        yield _problem(
            "lint-dns-names-swapped",
            f"{DOMAIN}/DnsTreeName",
            f"{text_of(domain, 'DnsTreeName')[:80]!r}, while DnsName is "
            f"{text_of(domain, 'DnsName')[:80]!r}",
            "the forest's root domain here, the account's domain there",
            "swap them",
        )
    for field in ("DnsName", "DnsTreeName"):
        name = text_of(domain, field)
        if name and "." not in name:
            yield _problem(
                "lint-dns-name-single-label",
                f"{DOMAIN}/{field}",
                repr(name[:60]),
                "a DNS name such as contoso.com",
                "write the full DNS name, unless the domain really has one label",
            )


def _machine_account(spec: dict[str, Any]) -> Iterator[Problem]:
    domain, entries = domain_of(spec), accounts_of(spec)
    if not domain or not entries:
        return
    where = f"{DOMAIN}/MachineAccountName"
    name = text_of(domain, "MachineAccountName")
    listed = [text_of(entry, "Name") for _, entry in entries]
    if "MachineAccountName" not in domain:
        yield _problem(
            "lint-machine-account-missing",
            where,
            "missing",
            "the account that a container uses by default",
            f"here it is the first one, {listed[0][:60]!r}",
        )
    elif name and plain(name) not in {plain(other) for other in listed}:
        near = nearest(name, listed)
        yield _problem(
            "lint-machine-account-unlisted",
            where,
            repr(name[:60]),
            "one of the accounts",
            f"did you mean {near!r}?" if near else "add it to GroupManagedServiceAccounts",
        )


def _scopes(spec: dict[str, Any]) -> Iterator[Problem]:
    domain = domain_of(spec)
    known = [n for n in (text_of(domain, "DnsName"), text_of(domain, "NetBiosName")) if n]
    own = {name.casefold() for name in known}
    seen: set[tuple[str, str]] = set()
    for index, entry in accounts_of(spec):
        name, scope = text_of(entry, "Name"), text_of(entry, "Scope")
        if not name or not scope:
            continue
        key = (plain(name), scope.casefold())
        if key in seen:
            yield _problem(
                "lint-account-twice",
                f"{ACCOUNTS}/{index}",
                f"{name[:60]!r} with scope {scope[:60]!r} again",
                remedy="remove one of the entries",
            )
        seen.add(key)
        if own and scope.casefold() not in own:
            near = nearest(scope.lower(), sorted(own))
            yield _problem(
                "lint-scope-unknown",
                f"{ACCOUNTS}/{index}/Scope",
                repr(scope[:60]),
                " or ".join(name[:60] for name in known),
                f"did you mean {near!r}?" if near else "right only for a trusted domain",
            )
    for index, _, wanted in twins_missing(spec):
        yield _problem(
            "lint-scope-twin-missing",
            f"{ACCOUNTS}/{index}",
            "the only entry of the default account",
            f"another with Scope {wanted[:80]!r}",
            "add one",
        )


def _keys(spec: dict[str, Any]) -> Iterator[Problem]:
    for pointer, place, table in tables_of(spec):
        known = described_keys(place)
        taken = dict(table)
        for key in table:
            if key in known:
                continue
            where = pointer_to(pointer, key)
            wanted = nearest_key(key, known, taken)
            if wanted is None:
                yield _problem("lint-key-unknown", where, "an unknown key", remedy="remove it")
                continue
            taken[wanted] = None
            remedy = f"rename it to {wanted!r}"
            yield _problem("lint-key-misspelt", where, "an unknown key", repr(wanted), remedy)


def _plugin(spec: dict[str, Any]) -> Iterator[Problem]:
    host = host_of(spec)
    if host is None:
        return
    guid = text_of(host, "PluginGUID")
    if guid and not (guid.startswith("{") and guid.endswith("}")):
        wanted = "{" + guid.strip("{}") + "}"
        yield _problem(
            "lint-plugin-guid-braces",
            f"{HOST}/PluginGUID",
            repr(guid[:60]),
            wanted[:60],
            "add them",
        )
    if "PortableCcgVersion" not in host or (
        isinstance(host["PortableCcgVersion"], str) and host["PortableCcgVersion"] != "1"
    ):
        shown = text_of(host, "PortableCcgVersion")
        found = repr(shown[:20]) if shown else "missing"
        yield _problem("lint-ccg-version", f"{HOST}/PortableCcgVersion", found, '"1"', "set it")
    both = ("PluginGUID", "PluginInput")
    for field in both if not any(field in host for field in both) else ():
        yield _problem("lint-plugin-field-missing", f"{HOST}/{field}", "missing")
    yield from _plugin_input(guid.strip("{}").lower(), host.get("PluginInput"))


def _plugin_input(guid: str, given: object) -> Iterator[Problem]:
    """Say what is doubtful about the input, which is never quoted: it may hold a secret."""
    where = f"{HOST}/PluginInput"
    if isinstance(given, dict):
        yield _problem(
            "lint-plugin-input-object",
            where,
            "an object",
            "a string",
            "AWS on Linux takes the object; for Windows and Kubernetes write it as a string",
        )
        return
    if not isinstance(given, str):
        return
    parts = given.split(":")
    keys = {pair.partition("=")[0].strip().lower() for pair in given.split(";")}
    forms = {
        _RANCHER: (len(parts) == 2, "NAMESPACE:SECRET"),  # noqa: PLR2004
        _AZURE: ({"objectid", "secreturi"} <= keys, "ObjectId=...;SecretUri=..."),
    }
    fits, form = forms.get(guid, (True, ""))
    if not fits:
        yield _problem("lint-plugin-input-form", where, "input of another form", form)
    is_triple = len(parts) == 3 and all(parts) and "//" not in given  # noqa: PLR2004
    if not _ARN.match(given) and (is_triple or _SECRET.search(given)):
        yield _problem(
            "lint-plugin-input-secret",
            where,
            "what looks like a password in clear text",
            "a reference to where the secret is kept",
            "everybody who can read the spec can read it: change the password, and use a plug-in "
            "that fetches it",
        )


_ALL: Final[tuple[Callable[[dict[str, Any]], Iterator[Problem]], ...]] = (
    *(_keys, _names, _domain_fields, _domain_names),
    *(_machine_account, _scopes, _plugin),
)
