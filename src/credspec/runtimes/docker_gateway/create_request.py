"""A ``POST /containers/create`` with a credential spec, made into one that Linux dockerd takes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final, Self

from credspec.agent.lease_environment import (
    KEYTAB_ENVIRONMENT,
    LEASE_ENVIRONMENT,
    MOUNT_POINT,
)
from credspec.errors import UsageError
from credspec.runtimes.docker_gateway.json_object import JsonObject, NotAnObjectError
from credspec.runtimes.oci_bundle import KEYTAB, OPTIONS
from credspec.runtimes.shim import ANNOTATION, VARIABLE
from credspec.spec.reference import SpecReference, parse_security_options

RUNTIME: Final = "credspec"
"""The name under which ``credspec setup docker`` registers the shim unless told otherwise."""

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


@dataclass(frozen=True, slots=True)
class CreateBody:
    """The body of a create request that asks for a credential spec."""

    runtime: str
    reference: SpecReference
    body: JsonObject
    host_config: JsonObject
    other_options: tuple[str, ...]

    @classmethod
    def unpack(cls, data: bytes | bytearray, runtime: str = RUNTIME) -> Self | None:
        """Read a body; None if the daemon is to have it as it is.

        That is one without a credential spec, and one that is no create request at all: the daemon
        words that best, and takes the option in no case.

        Raises:
            InvalidSpecError: the option's value is not one.
            UsageError: `docker-runtime-conflict` if the client asked for another runtime,
                `docker-repeated-key` if a key that matters here is there twice.
        """
        try:
            # Bytes that are not UTF-8 survive the way there and back.
            body = JsonObject.parse(data.decode("utf-8", "surrogateescape"))
            configs = [JsonObject.parse(member.text) for member in body.find("HostConfig")]
        except NotAnObjectError:
            return None
        lists = [member.value for config in configs for member in config.find("SecurityOpt")]
        options = [option for found in lists if isinstance(found, list) for option in found]
        if not all(isinstance(option, str) for option in options):
            return None
        reference, others = parse_security_options(options)
        if reference is None:
            return None
        _check_unique(body, "HostConfig", "Env", "Labels")
        _check_unique(configs[-1], "SecurityOpt", "Runtime", "Annotations", "Tmpfs")
        _check_runtime(configs[-1], runtime)
        return cls(runtime, reference, body, configs[-1], tuple(others))

    def pack(self, version: ApiVersion) -> bytes:
        """Return the body for a daemon that is asked in this version of the API.

        Raises:
            UsageError: `docker-wrong-type` if ``Env``, ``Labels``, ``Annotations`` or ``Tmpfs`` are
                of another type than the API's.
        """
        # The docker client, too, sends null where there are no options.
        config = self.host_config.with_member(
            "SecurityOpt", json.dumps(list(self.other_options) or None)
        ).with_member("Runtime", json.dumps(self.runtime))
        before = _environment(self.body)
        # One carrier only: whatever the client put there itself would contradict the option.
        ours = {VARIABLE, *(variable for _, variable in OPTIONS)}
        environment = [entry for entry in before if entry.partition("=")[0] not in ours]
        annotations = _object(config, "Annotations").without_exactly(ANNOTATION)
        wanted = self._options(annotations)
        # The shim sets these too, but what `docker exec` starts gets its environment from here.
        names = {entry.partition("=")[0] for entry in environment}
        has_keytab = wanted[KEYTAB[0]].lower() in {"true", "1"}
        tickets = LEASE_ENVIRONMENT | (KEYTAB_ENVIRONMENT if has_keytab else {})
        environment += [f"{n}={v}" for n, v in tickets.items() if n not in names]
        if version >= _ANNOTATIONS_SINCE:
            annotations = annotations.with_member(ANNOTATION, json.dumps(str(self.reference)))
            for annotation, value in wanted.items():
                if value:
                    annotations = annotations.without_exactly(annotation)
                    annotations = annotations.with_member(annotation, json.dumps(value))
        else:
            environment.append(f"{VARIABLE}={self.reference}")
            # Also without a value, so that one that the image sets does not count.
            environment += [f"{variable}={wanted[name]}" for name, variable in OPTIONS]
            # An image can set the variable, but no tmpfs: this tells the shim who asked.
            tmpfs = _object(config, "Tmpfs").without_exactly(MOUNT_POINT)
            config = config.with_member("Tmpfs", str(tmpfs.with_member(MOUNT_POINT, '""')))
        if annotations.members or config.find("Annotations"):
            config = config.with_member("Annotations", str(annotations))
        body = self.body.with_member("HostConfig", str(config))
        if environment != before:
            body = body.with_member("Env", json.dumps(environment))
        return str(body).encode("utf-8", "surrogateescape")

    def _options(self, annotations: JsonObject) -> dict[str, str]:
        """Return what is asked for besides, by annotation or by a label of the same name."""
        labels, given = _texts(_object(self.body, "Labels", "/")), _texts(annotations)
        return {name: given.get(name) or labels.get(name, "") for name, _ in OPTIONS}


def _texts(of: JsonObject) -> dict[str, str]:
    return {member.key: str(member.value) for member in of.members if member.value is not None}


def _environment(body: JsonObject) -> list[str]:
    value = _value(body, "Env") or []
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise UsageError.of(
            "docker-wrong-type", "something else", where="/Env", expected="a list of texts"
        )
    return value


def _object(parent: JsonObject, key: str, where: str = "/HostConfig/") -> JsonObject:
    found = parent.find(key)
    if not found or found[-1].value is None:
        return JsonObject(())
    try:
        return JsonObject.parse(found[-1].text)
    except NotAnObjectError:
        raise UsageError.of(
            "docker-wrong-type",
            "something else",
            where=f"{where}{key}",
            expected="an object",
        ) from None


def _check_runtime(host_config: JsonObject, runtime: str) -> None:
    found = host_config.find("Runtime")
    # Not a set: a hostile value need not be hashable.
    if not found or found[-1].value in (None, "", runtime):
        return
    raise UsageError.of(
        "docker-runtime-conflict",
        f"--runtime {found[-1].text[:80]} together with a credential spec",
        expected=f"the runtime {runtime}, which runs runc or crun",
        remedy="leave --runtime out",
    )


def _check_unique(parent: JsonObject, *keys: str) -> None:
    for key in keys:
        if len(parent.find(key)) > 1:
            raise UsageError.of(
                "docker-repeated-key",
                f"{key} is there more than once, together with a credential spec",
                expected="each key once",
            )


def _value(parent: JsonObject, key: str) -> Any:
    found = parent.find(key)
    return found[-1].value if found else None
