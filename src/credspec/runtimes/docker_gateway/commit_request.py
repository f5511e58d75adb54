"""A ``POST /commit``, so that the image does not get the variables that the gateway added.

dockerd gives a committed image all variables of the container except those that the request names.
A name without ``=`` is one that containers of the image do not have.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

from credspec.runtimes.docker_gateway.json_object import JsonObject
from credspec.runtimes.docker_gateway.lease_variables import is_lease_variable
from credspec.runtimes.docker_gateway.request_record import name_of
from credspec.runtimes.docker_gateway.requested_settings import added_variables
from credspec.runtimes.docker_gateway.settings_json import member, read_settings

_TARGET: Final = re.compile(
    r"(?:https?://[^/]*)?(?P<prefix>(?:/v\d{1,3}\.\d{1,3})?)/commit\?(?P<query>.*)"
)
# As dockerd has names and ids; anything else is not put into a path.
_CONTAINER: Final = re.compile(r"/?[0-9A-Za-z][0-9A-Za-z_.-]{0,254}")


@dataclass(frozen=True, slots=True)
class CommitTarget:
    """A commit of a container, by its name or id, in a version of the API."""

    prefix: str
    container: str


def parse_commit_target(method: str, target: str) -> CommitTarget | None:
    """Return what a request commits; None for any other request."""
    match = _TARGET.fullmatch(target) if method == "POST" else None
    if match is None:
        return None
    named = parse_qs(match["query"]).get("container", [""])[0]
    if _CONTAINER.fullmatch(named) is None:
        return None
    return CommitTarget(match["prefix"], named.lstrip("/"))


def commit_body(
    body: bytes | bytearray,
    container: bytes | bytearray,
    runtime: str,
    image_environment: list[str],
) -> bytes | None:
    """Return the body of a commit without the gateway's variables; None if it is to stay.

    `container` is dockerd's answer about the container, `image_environment` that of its image,
    whose variables come back where the gateway's had replaced them.
    """
    try:
        inspected = JsonObject.parse(_text(container))
        config = member(inspected, "Config")
        settings = read_settings(config, member(inspected, "HostConfig"))
        names = added_variables(settings, runtime)
        if not names:
            return None
        # Without a configuration, the container's own is taken as a whole.
        given = config if _text(body).strip() in {"", "null"} else JsonObject.parse(_text(body))
        entries = read_settings(given, JsonObject(())).environment
    except ValueError:
        return None  # dockerd words this best
    ours = {entry for entry in settings.environment if name_of(entry) in names}
    kept = [entry for entry in entries if entry not in ours]
    images = {
        name_of(entry): entry for entry in image_environment if is_lease_variable(name_of(entry))
    }
    missing = sorted(names - {name_of(entry) for entry in kept})
    environment = kept + [images.get(name, name) for name in missing]
    changed = given.with_member("Env", json.dumps(environment))
    return str(changed).encode("utf-8", "surrogateescape")


def _text(body: bytes | bytearray) -> str:
    return body.decode("utf-8", "surrogateescape")
