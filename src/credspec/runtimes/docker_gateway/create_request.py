"""A ``POST /containers/create`` with a credential spec, made into one that Linux dockerd takes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from credspec.errors import UsageError
from credspec.runtimes.shim import ANNOTATION, VARIABLE
from credspec.spec.reference import SpecReference, parse_security_options

RUNTIME: Final = "credspec"
"""The name under which ``credspec setup docker`` registers the shim."""

_TARGET: Final = re.compile(r"(?:/v(\d{1,3})\.(\d{1,3}))?/containers/create(?:\?.*)?")
_ANNOTATIONS_SINCE: Final = (1, 43)

ApiVersion = tuple[int, int]


@dataclass(frozen=True, slots=True)
class CreateTarget:
    """A create request's target: `version` is None if the client left it to the daemon."""

    version: ApiVersion | None


def parse_target(method: str, target: str) -> CreateTarget | None:
    """Return what a create request asks for; None for any other request."""
    match = _TARGET.fullmatch(target) if method == "POST" else None
    if match is None:
        return None
    major, minor = match.groups()
    return CreateTarget((int(major), int(minor)) if major else None)


def parse_version(text: str) -> ApiVersion | None:
    """Return a version such as ``1.41`` as numbers, None if it is none."""
    match = re.fullmatch(r"(\d{1,3})\.(\d{1,3})", text.strip())
    return (int(match[1]), int(match[2])) if match else None


def take_reference(document: object) -> SpecReference | None:
    """Take the credential spec out of a create request's security options; None without one.

    Raises:
        InvalidSpecError: the option's value is not one.
    """
    host_config = document.get("HostConfig") if isinstance(document, dict) else None
    options = host_config.get("SecurityOpt") if isinstance(host_config, dict) else None
    if not isinstance(options, list) or not all(isinstance(o, str) for o in options):
        return None
    reference, others = parse_security_options(options)
    if reference is not None and isinstance(host_config, dict):
        host_config["SecurityOpt"] = others or None
    return reference


def add_carrier(document: dict[str, Any], reference: SpecReference, version: ApiVersion) -> None:
    """Give a container the runtime and the carrier of its spec, in the request's own words.

    Raises:
        UsageError: `docker-runtime-conflict` if the client asked for another runtime.
    """
    host_config = document["HostConfig"]
    wanted = host_config.get("Runtime")
    if wanted not in {None, "", RUNTIME}:
        raise UsageError.of(
            "docker-runtime-conflict",
            f"--runtime {wanted} together with a credential spec",
            expected=f"the runtime {RUNTIME}, which runs runc or crun",
            remedy="leave --runtime out",
        )
    host_config["Runtime"] = RUNTIME
    # One carrier only: whatever the client put there itself would contradict the option.
    environment = [
        entry
        for entry in document.get("Env") or []
        if not (isinstance(entry, str) and entry.partition("=")[0] == VARIABLE)
    ]
    annotations = dict(host_config.get("Annotations") or {})
    annotations.pop(ANNOTATION, None)
    if version >= _ANNOTATIONS_SINCE:
        annotations[ANNOTATION] = str(reference)
    else:
        environment.append(f"{VARIABLE}={reference}")
    if annotations or "Annotations" in host_config:
        host_config["Annotations"] = annotations
    if environment or "Env" in document:
        document["Env"] = environment


def unpack_body(body: bytes) -> object:
    """Return a request's document, None if it is not JSON, which the daemon words best."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def pack_body(document: object) -> bytes:
    """Return the bytes of a rewritten document."""
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")
