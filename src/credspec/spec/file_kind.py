"""What a file about credential specs is: the spec itself, or a file of a tool that carries one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final

from credspec.spec.parts import nearest
from credspec.spec.strict_json import parse_json, pointer_to

KUBERNETES_KIND: Final = "GMSACredentialSpec"

MAX_OBJECT_NAME: Final = 253
"""The longest name of a Kubernetes object, in characters."""

# Kubernetes limits the whole name, not its labels (a DNS subdomain, RFC 1123).
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_OBJECT_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_COMMENTS: Final = re.compile(r"(?:\s*#[^\n]*\n)*\s*")
_MAX_DEPTH: Final = 6
_SPEC_KEYS: Final = ("CmsPlugins", "DomainJoinConfig", "ActiveDirectoryConfig")
_MAX_KEYS: Final = 50


class FileKind(StrEnum):
    """The kinds of file, recognised by their contents."""

    CREDENTIAL_SPEC = "a credential spec"
    KUBERNETES = "a Kubernetes object"
    COMPOSE = "a Compose file"
    ECS = "an ECS task definition"
    OCI = "an OCI config.json"


def parse_text(text: str, *, is_yaml: bool = False) -> Any:
    """Return the parsed document of a text in JSON or YAML.

    With `is_yaml` text that could be JSON is read as YAML.

    Raises:
        InvalidSpecError: as `credspec.spec.strict_json.parse_json` and
            `credspec.spec.kubernetes.from_kubernetes_yaml`.
    """
    # Comments begin YAML files; before JSON they get an error of their own.
    content = text[_COMMENTS.match(text).end() :]  # type: ignore[union-attr]
    if not is_yaml and content.startswith(("{", "[", '"', "/")):
        return parse_json(text)
    from credspec.spec.kubernetes import YamlFeatureError, from_kubernetes_yaml

    try:
        return from_kubernetes_yaml(text)
    except YamlFeatureError:
        # Compose files have anchors, merge keys and tags, which are none of a spec's.
        document = from_kubernetes_yaml(text, expand=True)
        if kind_of(document) is not FileKind.COMPOSE:
            raise
        return document


def kind_of(document: Any) -> FileKind:
    """Return the kind of a parsed document; anything unknown counts as a credential spec."""
    if not isinstance(document, dict) or {"CmsPlugins", "DomainJoinConfig"} & document.keys():
        return FileKind.CREDENTIAL_SPEC
    if document.get("kind") == KUBERNETES_KIND:
        return FileKind.KUBERNETES
    if "services" in document:
        return FileKind.COMPOSE
    keys = {str(key).lower() for key in document}
    if keys & {"credentialspecs", "containerdefinitions", "taskdefinition"}:
        return FileKind.ECS
    if keys & {"windows", "annotations", "ociversion"}:
        return FileKind.OCI
    return FileKind.CREDENTIAL_SPEC


def is_object_name(name: str) -> bool:
    """Return whether Kubernetes takes a name for an object."""
    return len(name) <= MAX_OBJECT_NAME and _OBJECT_NAME.fullmatch(name) is not None


def other_kind(document: Any) -> str:
    """Return what an object is that has nothing of a credential spec; ``""`` if it may be one."""
    if not isinstance(document, dict) or not document or len(document) > _MAX_KEYS:
        return ""
    if not document.keys().isdisjoint(_SPEC_KEYS):  # as nearly always, without the search's library
        return ""
    if any(nearest(str(key).title(), [k.title() for k in _SPEC_KEYS]) for key in document):
        return ""
    kind = kind_of(document)
    if kind is not FileKind.CREDENTIAL_SPEC:
        return str(kind)
    named = document.get("kind")
    if "apiVersion" in document and isinstance(named, str):
        return f"a Kubernetes object of the kind {named[:60]!r}"
    return "an object without any of its keys"


def nested_spec(document: Any) -> str:
    """Return the JSON pointer of a spec further down in a document, or ``""`` if there is none."""
    level = [("", document)]
    for _ in range(_MAX_DEPTH):
        below: list[tuple[str, Any]] = []
        for pointer, table in level:
            for key, value in _members(table):
                if isinstance(value, dict) and "DomainJoinConfig" in value:
                    return pointer_to(pointer, key)
                if isinstance(value, str) and '"DomainJoinConfig"' in value:
                    return pointer_to(pointer, key)
                below.append((pointer_to(pointer, key), value))
        level = below
    return ""


def _members(table: Any) -> Iterable[tuple[str | int, Any]]:
    if isinstance(table, dict):
        return table.items()
    return enumerate(table) if isinstance(table, list) else ()
