"""`Settings` in the JSON of dockerd's API: a container's ``Config`` and ``HostConfig``."""

from __future__ import annotations

import json
from typing import Any

from credspec.runtimes.docker_gateway.json_object import JsonObject, NotAnObjectError
from credspec.runtimes.docker_gateway.requested_settings import Settings


def read_settings(config: JsonObject, host_config: JsonObject) -> Settings:
    """Read settings; in a create request `config` is the body itself.

    Raises:
        ValueError: a member of another type than the API's.
    """
    runtime = _value(host_config, "Runtime") or ""
    if not isinstance(runtime, str):
        raise ValueError("Runtime")  # noqa: TRY004 - of the document, not of an argument
    return Settings(
        security_options=_texts(host_config, "SecurityOpt"),
        runtime=runtime,
        annotations=_object(host_config, "Annotations"),
        tmpfs=_object(host_config, "Tmpfs"),
        environment=_texts(config, "Env"),
        labels=_object(config, "Labels"),
    )


def write_settings(
    config: JsonObject, host_config: JsonObject, before: Settings, after: Settings
) -> tuple[JsonObject, JsonObject]:
    """Return both objects with what differs between two settings; all else stays as written."""
    if after.environment != before.environment:
        config = config.with_member("Env", json.dumps(list(after.environment)))
    if after.security_options != before.security_options:
        options = json.dumps(list(after.security_options) or None)
        host_config = host_config.with_member("SecurityOpt", options)
    if after.runtime != before.runtime:
        host_config = host_config.with_member("Runtime", json.dumps(after.runtime))
    for key, old, new in (
        ("Annotations", before.annotations, after.annotations),
        ("Tmpfs", before.tmpfs, after.tmpfs),
    ):
        if new != old:
            host_config = with_texts(host_config, key, new)
    return config, host_config


def with_texts(parent: JsonObject, key: str, texts: dict[str, str]) -> JsonObject:
    """Return an object with a member of texts, or without it if there are none, as dockerd does."""
    if texts:
        return parent.with_member(key, json.dumps(texts))
    return JsonObject(tuple(m for m in parent.members if m not in parent.find(key)))


def member(parent: JsonObject, key: str) -> JsonObject:
    """Return an object's member that is an object.

    Raises:
        NotAnObjectError: there is none, or it is something else.
    """
    found = parent.find(key)
    if not found:
        raise NotAnObjectError(key)
    return JsonObject.parse(found[-1].text)


def _value(parent: JsonObject, key: str) -> Any:
    found = parent.find(key)
    return found[-1].value if found else None


def _texts(parent: JsonObject, key: str) -> tuple[str, ...]:
    value = _value(parent, key) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(key)
    return tuple(value)


def _object(parent: JsonObject, key: str) -> dict[str, str]:
    value = _value(parent, key) or {}
    if not isinstance(value, dict):
        raise ValueError(key)  # noqa: TRY004 - of the document, not of an argument
    # For a Go program null is an empty text here.
    texts = {name: "" if text is None else text for name, text in value.items()}
    if not all(isinstance(text, str) for text in texts.values()):
        raise ValueError(key)
    return texts
