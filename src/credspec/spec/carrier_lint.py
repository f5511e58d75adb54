"""What is wrong or doubtful about files of other tools that carry or name credential specs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, Final

from credspec.contract.ticket_options import OPTIONS
from credspec.errors import InvalidSpecError, Problem
from credspec.spec.file_kind import FileKind
from credspec.spec.lint import Finding, Severity, lint_bytes, lint_document
from credspec.spec.reference import parse_reference
from credspec.spec.rules.carriers import (
    COMPOSE_CREDENTIAL_SPEC,
    NO_SPEC,
    Carrier,
    ComposeService,
)
from credspec.spec.rules.tickets import SERVICES_OF_MACHINES, TicketOptions, option_problem
from credspec.spec.spec_directory import components_of
from credspec.spec.strict_json import pointer_to

ANNOTATION: Final = "credspec.dev/spec"
"""The annotation of an OCI bundle that the runtime shim reads."""

VARIABLE: Final = "CREDSPEC"
"""The variable that it reads where there are no annotations."""


def lint_carrier(document: dict[str, Any], kind: FileKind) -> tuple[Finding, ...]:
    """Return all findings about a parsed file of another tool, and about the specs in it.

    The pointers of findings about a spec in the file begin with that of the text that holds it.
    """
    findings = list(_OF_KIND[kind](document))
    if not findings:
        carrier = Carrier(str(kind), _EXPECTED[kind], has_spec=_carries(document, kind))
        findings += _warnings(NO_SPEC.check(carrier))
    return tuple(findings)


def _compose(document: dict[str, Any]) -> Iterator[Finding]:
    yield from _reference_findings(document, FileKind.COMPOSE)
    for where, service in _services(document):
        members = [(service.get(name), f"{where}/{name}") for name in ("annotations", "labels")]
        yield from _option_findings(members)
        yield from _warnings(COMPOSE_CREDENTIAL_SPEC.check(ComposeService(where, service)))
        options = service.get("security_opt")
        for index, option in enumerate(options if isinstance(options, list) else ()):
            if isinstance(option, str) and option.lower().startswith("credentialspec:"):
                yield Finding(
                    Severity.ERROR,
                    Problem(
                        code="spec-reference-invalid",
                        where=f"{where}/security_opt/{index}",
                        found="credentialspec with a colon, which Docker refuses",
                        expected="credentialspec=file://NAME.json, with =",
                    ),
                )


def _option_findings(tables: list[tuple[Any, str]]) -> Iterator[Finding]:
    """Return what is wrong about the options of tickets; the first table that has one counts."""
    values: dict[str, str] = {}
    places: dict[str, str] = {}
    for (table, where), (name, _) in product(tables, OPTIONS):
        for pointer, value in _assigned(table, where, name):
            if "$" in value:
                return  # a variable, whose value only Compose knows
            values.setdefault(name, value)
            places.setdefault(name, pointer)
    options = TicketOptions(values, places)
    wrong = option_problem(options)
    if wrong is not None:
        yield Finding(Severity.ERROR, wrong)
    yield from _warnings(SERVICES_OF_MACHINES.check(options))


def _oci(document: dict[str, Any]) -> Iterator[Finding]:
    yield from _reference_findings(document, FileKind.OCI)
    yield from _option_findings([(document.get("annotations"), "/annotations")])
    windows = document.get("windows")
    carried = windows.get("credentialSpec") if isinstance(windows, dict) else None
    if isinstance(carried, str):
        yield from _below("/windows/credentialSpec", lint_bytes(carried.encode(*_ENCODING)))
    elif carried is not None:
        yield from _below("/windows/credentialSpec", lint_document(carried))


def _ecs(document: dict[str, Any]) -> Iterator[Finding]:
    for where, text in _ecs_specs(document):
        scheme, _, location = text.partition(":")
        known = scheme.lower() in {"credentialspec", "credentialspecdomainless"}
        if known and "/dockerSecurityOptions/" in where:
            continue  # of ECS on Windows, which takes file:// too
        if not known or not location.startswith("arn:"):
            yield Finding(
                Severity.ERROR,
                Problem(
                    code="spec-reference-invalid",
                    where=where,
                    found=repr(text[:120]),
                    expected="credentialspec:ARN or credentialspecdomainless:ARN",
                ),
            )


_OF_KIND: Final = {FileKind.COMPOSE: _compose, FileKind.OCI: _oci, FileKind.ECS: _ecs}
_EXPECTED: Final = {
    FileKind.COMPOSE: "credentialspec= in security_opt of a service",
    FileKind.OCI: f"the annotation {ANNOTATION}, or windows.credentialSpec",
    FileKind.ECS: "credentialSpecs of a container definition",
}
_ENCODING: Final = ("utf-8", "surrogatepass")


def _carries(document: dict[str, Any], kind: FileKind) -> bool:
    if kind is FileKind.ECS:
        return any(_ecs_specs(document))
    windows = document.get("windows")
    in_windows = isinstance(windows, dict) and "credentialSpec" in windows
    return (kind is FileKind.OCI and in_windows) or any(_references(document, kind))


def _services(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    services = document.get("services")
    for name, service in services.items() if isinstance(services, dict) else ():
        if isinstance(service, dict):
            yield pointer_to("/services", name), service


def _ecs_specs(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Return what names a spec, also in the answer of ``describe-task-definition``."""
    waiting: list[tuple[str, Any]] = [("", document)]
    while waiting:
        where, table = waiting.pop()
        for key, value in table.items() if isinstance(table, dict) else ():
            name, below = str(key).lower(), pointer_to(where, key)
            items = value if isinstance(value, list) else ()
            if name == "taskdefinition":
                waiting.append((below, value))
            elif name == "containerdefinitions":
                waiting += [(f"{below}/{index}", item) for index, item in enumerate(items)]
            elif name in {"credentialspecs", "dockersecurityoptions"}:
                texts = [item if isinstance(item, str) else "" for item in items]
                for index, text in enumerate(texts):
                    if name == "credentialspecs" or text.lower().startswith("credentialspec"):
                        yield f"{below}/{index}", text


def _references(document: Any, kind: FileKind) -> Iterator[tuple[str, str]]:
    """Return each reference to a spec, with the pointer of the text that holds it."""
    if kind is FileKind.OCI:
        annotations = document.get("annotations")
        carried = annotations.get(ANNOTATION) if isinstance(annotations, dict) else None
        if isinstance(carried, str):
            yield pointer_to("/annotations", ANNOTATION), carried
    if kind is not FileKind.COMPOSE:
        return
    for where, service in _services(document):
        options = service.get("security_opt")
        for index, option in enumerate(options if isinstance(options, list) else ()):
            key, equals, value = option.partition("=") if isinstance(option, str) else ("", "", "")
            if equals and key.lower() == "credentialspec":
                yield f"{where}/security_opt/{index}", value
        for member, name in (("annotations", ANNOTATION), ("environment", VARIABLE)):
            yield from _assigned(service.get(member), f"{where}/{member}", name)


def _assigned(table: Any, where: str, name: str) -> Iterator[tuple[str, str]]:
    """Return the value of a name in a mapping, or in a list of ``NAME=VALUE``, with its pointer."""
    if isinstance(table, dict) and isinstance(table.get(name), str):
        yield pointer_to(where, name), table[name]
    for index, item in enumerate(table if isinstance(table, list) else ()):
        key, _, value = item.partition("=") if isinstance(item, str) else ("", "", "")
        if key == name and value:
            yield f"{where}/{index}", value


def _reference_findings(document: dict[str, Any], kind: FileKind) -> Iterator[Finding]:
    for where, text in _references(document, kind):
        if kind is FileKind.COMPOSE:
            if "$" in text.replace("$$", ""):
                continue  # a variable, whose value only Compose knows
            text = text.replace("$$", "$")  # noqa: PLW2901 - as Compose reads it
        try:
            reference = parse_reference(text)
            if reference.scheme == "file":
                components_of(reference.value, "the spec directory")
        except InvalidSpecError as error:
            yield from _below(where, (Finding(Severity.ERROR, p) for p in error.problems))
            continue
        if reference.scheme == "raw":
            yield from _below(where, lint_bytes(reference.value.encode(*_ENCODING)))


def _below(where: str, findings: Any) -> Iterator[Finding]:
    for finding in findings:
        inner = finding.problem.where
        at = f"{where}{inner}" if inner.startswith("/") else where
        yield finding._replace(problem=finding.problem._replace(where=at), fixable=False)


def _warnings(problems: Iterator[Problem]) -> Iterator[Finding]:
    return (Finding(Severity.WARNING, problem) for problem in problems)
