"""A ``GMSACredentialSpec`` object as the API server returns it, and what may be wrong with it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from credspec.errors import InvalidSpecError, NotFoundError
from credspec.kubernetes.objects.names import GROUP, KIND, is_spec_name
from credspec.spec.document import CredentialSpec
from credspec.spec.encoding import MAX_SPEC_BYTES
from credspec.spec.strict_json import parse_json

MAX_OBJECT_BYTES: Final = 1024 * 1024
"""The largest object that is read; etcd stores none above 1.5 MiB."""

_VERSIONS: Final = frozenset({f"{GROUP}/v1", f"{GROUP}/v1alpha1"})


class EmptyObjectError(InvalidSpecError):
    """An object without a credential spec, which the resource's schema allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialSpecObject:
    """An object: its name, which object it is (`uid`), which state of it, and the spec in it."""

    name: str
    uid: str
    resource_version: str
    spec: CredentialSpec


def read_object(data: bytes) -> CredentialSpecObject:
    """Read an object from the JSON of the API server's answer.

    Raises:
        InvalidSpecError: `kubernetes-object-too-large`, `kubernetes-object-encoding`, and those of
            `object_of` and of `credspec.spec.strict_json.parse_json`.
    """
    if len(data) > MAX_OBJECT_BYTES:
        raise _too_large("an object of more", MAX_OBJECT_BYTES)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidSpecError.of(
            "kubernetes-object-encoding",
            f"the byte at offset {error.start} is not UTF-8",
            where=KIND,
            expected="JSON in UTF-8",
        ) from None
    return object_of(parse_json(text))


def object_of(document: Any) -> CredentialSpecObject:
    """Read an object from parsed JSON.

    `PluginInput` may be an object, as AWS has it, although a cluster with the resource's schema
    stores strings only.

    Raises:
        InvalidSpecError: `kubernetes-object-kind` if it is another object,
            `kubernetes-object-empty` (an `EmptyObjectError`), `kubernetes-object-too-large` of a
            spec above 64 KiB, and all that `CredentialSpec.from_json` finds.
    """
    if not isinstance(document, dict):
        raise _other_kind("no object")
    found = (document.get("apiVersion"), document.get("kind"))
    if found[0] not in _VERSIONS or found[1] != KIND:
        raise _other_kind(f"{str(found[1])[:60]!r} of {str(found[0])[:60]!r}")
    metadata = document.get("metadata")
    named = metadata if isinstance(metadata, dict) else {}
    name = named.get("name")
    if not is_spec_name(name):
        raise _other_kind("an object without a valid metadata.name")
    content = credspec_of(document)
    spec = CredentialSpec.from_json(content)
    if len(spec.to_text(compact=True).encode("utf-8", "replace")) > MAX_SPEC_BYTES:
        raise _too_large("a credential spec of more", MAX_SPEC_BYTES)
    return CredentialSpecObject(
        name=str(name),
        uid=_text(named.get("uid")),
        resource_version=_text(named.get("resourceVersion")),
        spec=spec,
    )


def credspec_of(document: dict[str, Any]) -> Any:
    """Return the `credspec` of an object.

    Raises:
        EmptyObjectError: `kubernetes-object-empty`.
    """
    if document.get("credspec") is None:
        raise EmptyObjectError.of(
            "kubernetes-object-empty",
            "the object has no credspec",
            where="/credspec",
            expected="a credential spec; the key is credspec, not spec",
        )
    return document["credspec"]


def compact_contents(document: dict[str, Any]) -> str:
    """Return the `credspec` of an object as windows-gmsa writes it into a pod: compact JSON.

    Raises:
        EmptyObjectError: `kubernetes-object-empty`.
    """
    return json.dumps(credspec_of(document), separators=(",", ":"), sort_keys=True)


def missing_object(name: str) -> NotFoundError:
    """Return the error for an object that the cluster does not have, in windows-gmsa's words."""
    return NotFoundError.of(
        "kubernetes-spec-missing",
        f"cred spec {name} does not exist",
        remedy="list them with kubectl get gmsacredentialspecs; make one with credspec convert",
    )


def _too_large(found: str, most: int) -> InvalidSpecError:
    return InvalidSpecError.of(
        "kubernetes-object-too-large",
        f"{found} than {most} bytes",
        where=KIND,
        expected=f"at most {most} bytes",
    )


def _other_kind(found: str) -> InvalidSpecError:
    return InvalidSpecError.of("kubernetes-object-kind", found, expected=f"a {KIND} of {GROUP}/v1")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
