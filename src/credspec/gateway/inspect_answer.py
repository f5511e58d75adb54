"""dockerd's answers about containers, with what clients asked for instead of what was added."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from credspec.gateway import service_record
from credspec.gateway.json_object import JsonObject, NotAnObjectError, elements
from credspec.gateway.requested_settings import (
    listed_annotations,
    requested,
    with_image_variables,
)
from credspec.gateway.settings_json import (
    member,
    read_settings,
    with_texts,
    write_settings,
)

Kind = Literal["container", "list", "usage", "service", "services"]

_TARGET: Final = re.compile(
    r"(?:https?://[^/]*)?(?P<prefix>(?:/v\d{1,3}\.\d{1,3})?)/"
    r"(?:(?P<list>containers/json)|(?P<usage>system/df)|(?P<container>containers/[^?]+/json)"
    r"|(?P<service>services/[^/?]+)|(?P<services>services))"
    r"(?:\?.*)?"
)
_SIGNS: Final = (b"credspec", b"credentialspec")


@dataclass(frozen=True, slots=True)
class InspectTarget:
    """A question about containers or services.

    `prefix` is the version of the API as it stands in paths.
    """

    kind: Kind
    prefix: str


def parse_inspect_target(method: str, target: str) -> InspectTarget | None:
    """Return what a request asks about containers or services; None for any other request."""
    match = _TARGET.fullmatch(target) if method == "GET" else None
    if match is None:
        return None
    if match["list"]:
        return InspectTarget("list", match["prefix"])
    if match["usage"]:
        return InspectTarget("usage", match["prefix"])
    if match["service"] or match["services"]:
        return InspectTarget("service" if match["service"] else "services", match["prefix"])
    return InspectTarget("container", match["prefix"])


def may_need_change(body: bytes | bytearray) -> bool:
    """Return whether anything of credspec's may be in an answer; Go writes names as they are."""
    return any(sign in body for sign in _SIGNS)


def image_of(body: bytes | bytearray, runtime: str) -> str | None:
    """Return the image of a container of the gateway's, by its id; None for other containers."""
    try:
        container = JsonObject.parse(_text(body))
        settings = read_settings(member(container, "Config"), member(container, "HostConfig"))
        image = container.find("Image")[-1].value
    except (ValueError, IndexError):
        return None
    return image if requested(settings, runtime) is not None and isinstance(image, str) else None


def as_requested(
    body: bytes | bytearray, kind: Kind, runtime: str, image_environment: list[str]
) -> bytes | None:
    """Return an answer as if nothing had been added; None if nothing was.

    `image_environment` is that of the image of the one container that is asked for.
    """
    try:
        if kind == "container":
            changed = _container(JsonObject.parse(_text(body)), runtime, image_environment)
        elif kind == "service":
            changed = _service(_text(body))
        elif kind == "services":
            changed = _changed_elements(_text(body), _service)
        elif kind == "list":
            changed = _list(_text(body))
        else:
            usage = JsonObject.parse(_text(body))
            found = usage.find("Containers")
            listed = _list(found[-1].text) if found else None
            changed = None if listed is None else str(usage.with_member("Containers", listed))
    except ValueError:
        return None  # nothing that dockerd answers
    return None if changed is None else changed.encode("utf-8", "surrogateescape")


def _container(container: JsonObject, runtime: str, image_environment: list[str]) -> str | None:
    config, host_config = member(container, "Config"), member(container, "HostConfig")
    settings = read_settings(config, host_config)
    found = requested(settings, runtime)
    if found is None:
        return None
    found = with_image_variables(found, settings, image_environment)
    config, host_config = write_settings(config, host_config, settings, found)
    return str(
        container.with_member("Config", str(config)).with_member("HostConfig", str(host_config))
    )


def _list(text: str) -> str | None:
    return _changed_elements(text, _listed)


def _changed_elements(text: str, change: Callable[[str], str | None]) -> str | None:
    items = elements(text)
    changed = [change(item) or item for item in items]
    if changed == items:
        return None
    return "[" + ",".join(changed) + "]"


def _service(text: str) -> str | None:
    """Return a service as it was asked for, now and before its last update; None if as it is."""
    service = JsonObject.parse(text)
    changed = service
    for key in ("Spec", "PreviousSpec"):
        spec = service_record.as_requested(service_record.objects(service, key))
        if spec is not None:
            changed = changed.with_member(key, str(spec))
    return None if changed is service else str(changed)


def _listed(text: str) -> str:
    """Return one container of a list, which has annotations since version 1.46 of the API."""
    try:
        container = JsonObject.parse(text)
        host_config = member(container, "HostConfig")
        settings = read_settings(container, host_config)
    except NotAnObjectError:
        return text
    annotations = listed_annotations(settings.annotations, settings.labels)
    if annotations == settings.annotations:
        return text
    host_config = with_texts(host_config, "Annotations", annotations)
    return str(container.with_member("HostConfig", str(host_config)))


def image_environment_of(body: bytes | bytearray) -> list[str]:
    """Return the environment in dockerd's answer about an image, empty if there is none."""
    try:
        found = json.loads(body)["Config"]["Env"] or []
    except (ValueError, TypeError, KeyError, RecursionError):
        return []
    return [entry for entry in found if isinstance(entry, str)] if isinstance(found, list) else []


def _text(body: bytes | bytearray) -> str:
    return body.decode("utf-8", "surrogateescape")
