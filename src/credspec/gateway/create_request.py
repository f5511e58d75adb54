"""A ``POST /containers/create`` with a credential spec, made into one that Linux dockerd takes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from credspec.contract.container_environment import with_lease_variables
from credspec.contract.errors import ShimError
from credspec.contract.lease_environment import KEYTAB_ENVIRONMENT, LEASE_ENVIRONMENT
from credspec.contract.names import (
    ANNOTATION,
    MOUNT_POINT,
    REAL_RUNTIMES,
    RUNTIME,
    VARIABLE,
    runtime_paths,
)
from credspec.contract.ticket_options import (
    ANNOTATIONS,
    KEYTAB,
    OPTIONS,
    REQUESTED,
    VARIABLES,
    check_options,
    short_name,
)
from credspec.errors import UsageError
from credspec.gateway.json_object import JsonObject, Member, NotAnObjectError
from credspec.gateway.lease_variables import is_lease_variable
from credspec.gateway.recorded_request import with_record, without_additions
from credspec.gateway.request_names import (
    check_annotations,
    check_labels,
    check_members,
    check_security_options,
    check_variables,
)
from credspec.gateway.requested_settings import PLAIN_RUNTIMES
from credspec.gateway.spec_presence import check_spec_present
from credspec.spec.reference import SpecReference, parse_reference, parse_security_options

_TARGET: Final = re.compile(r"(?:/v(\d{1,3})\.(\d{1,3}))?/containers/create(?:\?.*)?")
_ANNOTATIONS_SINCE: Final = (1, 43)
_OTHER_TYPE: Final = "a value of another JSON type"

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
        words that best, and takes the option in no case. Without the option, an annotation of the
        client's names the spec, unless the client also chose a runtime, which then reads it itself.

        Raises:
            InvalidSpecError: the option's value is not one.
            UsageError: `docker-runtime-conflict` if the client asked for another runtime,
                `docker-repeated-key` if a key that matters here is there twice,
                `docker-misspelt-name`, `docker-label-spec`.
        """
        try:
            # Bytes that are not UTF-8 survive the round trip.
            body = JsonObject.parse(data.decode("utf-8", "surrogateescape"))
            configs = [JsonObject.parse(member.text) for member in body.find("HostConfig")]
        except NotAnObjectError:
            return None
        body, configs = without_additions(body, configs, runtime)
        lists = [member.value for config in configs for member in config.find("SecurityOpt")]
        options = [option for found in lists if isinstance(found, list) for option in found]
        if not all(isinstance(option, str) for option in options):
            return None
        check_members(body, configs)
        check_security_options(options)
        reference, others = parse_security_options(options)
        for config in configs:
            check_annotations(_members(config, "Annotations"))
        if reference is None:
            reference = _annotated(configs, runtime)
        check_labels(_members(body, "Labels"), str(reference or ""))
        if reference is None:
            check_spec_present(body, configs)
            return None
        _check_unique(body, "HostConfig", "Env", "Labels")
        _check_unique(configs[-1], "SecurityOpt", "Runtime", "Annotations", "Tmpfs")
        _check_runtime(configs[-1], runtime)
        return cls(runtime, reference, body, configs[-1], tuple(others))

    @property
    def image(self) -> str:
        """The name or id of the image, empty if there is none."""
        value = _value(self.body, "Image")
        return value if isinstance(value, str) else ""

    def pack(self, version: ApiVersion, image_environment: Sequence[str] = ()) -> bytes:
        """Return the body for a daemon that is asked in this version of the API.

        `image_environment` are the variables that the image sets, as ``NAME=VALUE``.

        Raises:
            UsageError: `docker-wrong-type` if ``Env``, ``Labels``, ``Annotations`` or ``Tmpfs`` are
                of another type than the API's, `option-invalid`, `docker-variable-option` for an
                option that is given as a variable.
        """
        # The docker client, too, sends null where there are no options.
        config = self.host_config.with_member(
            "SecurityOpt", json.dumps(list(self.other_options) or None)
        ).with_member("Runtime", json.dumps(self.runtime))
        before = _environment(self.body)
        # One carrier only: whatever the client put there itself would contradict the option.
        environment = [
            entry
            for entry in before
            if entry.partition("=")[0] not in VARIABLES
            # A name without value, as in committed images, sets nothing.
            and not is_lease_variable(entry)
        ]
        annotations = _object(config, "Annotations").without_exactly(ANNOTATION)
        annotations = annotations.without_exactly(REQUESTED)
        wanted = self._options(annotations)
        check_options_given(wanted, before)
        # The shim sets these too, but what `docker exec` starts gets its environment from here.
        has_keytab = wanted[KEYTAB[0]].lower() in {"true", "1"}
        tickets = LEASE_ENVIRONMENT | (KEYTAB_ENVIRONMENT if has_keytab else {})
        environment = with_lease_variables(environment, tickets, image_environment)
        if version >= _ANNOTATIONS_SINCE:
            annotations = _with_exactly(annotations, ANNOTATION, str(self.reference))
            for annotation, value in wanted.items():
                if value:
                    annotations = _with_exactly(annotations, annotation, value)
        else:
            environment.append(f"{VARIABLE}={self.reference}")
            # Also without a value, so that one that the image sets does not count.
            environment += [f"{variable}={wanted[name]}" for name, variable in OPTIONS]
            # An image can set the variables, but no tmpfs: these tell the shim who asked for what.
            tmpfs = _with_exactly(_object(config, "Tmpfs"), MOUNT_POINT, "")
            for annotation, value in wanted.items():
                if value:
                    named = f"{MOUNT_POINT}/{short_name(annotation)}={value}"
                    tmpfs = _with_exactly(tmpfs, named, "")
            config = config.with_member("Tmpfs", str(tmpfs))
            for annotation in ANNOTATIONS:  # the daemon would drop them
                annotations = annotations.without_exactly(annotation)
        if annotations.members or config.find("Annotations"):
            config = config.with_member("Annotations", str(annotations))
        body = self.body
        if environment != before:
            body = body.with_member("Env", json.dumps(environment))
        config = with_record(
            (self.body, self.host_config),
            (body, config),
            self.runtime,
            in_annotation=version >= _ANNOTATIONS_SINCE,
        )
        body = body.with_member("HostConfig", str(config))
        return str(body).encode("utf-8", "surrogateescape")

    def _options(self, annotations: JsonObject) -> dict[str, str]:
        """Return the ticket options, by annotation or by a label of the same name."""
        labels, given = _texts(_object(self.body, "Labels", "/")), _texts(annotations)
        return {name: given.get(name) or labels.get(name, "") for name, _ in OPTIONS}


def _annotated(configs: list[JsonObject], runtime: str) -> SpecReference | None:
    """Return the spec that an annotation names, None if a runtime of the client's reads it."""
    # Under Docker's own nobody reads an annotation; any other may be the shim by another name.
    if not configs or _value(configs[-1], "Runtime") not in (None, "", runtime, *PLAIN_RUNTIMES):
        return None
    value = _texts(_members(configs[-1], "Annotations")).get(ANNOTATION)
    return parse_reference(value) if value else None


def check_options_given(wanted: dict[str, str], environment: list[str]) -> None:
    """Refuse options of the tickets that are wrong, or that are given as variables.

    Raises:
        UsageError: `option-invalid`, `docker-variable-option`, `docker-misspelt-name`.
    """
    try:
        check_options(wanted)
    except ShimError as error:
        raise UsageError.of(error.code, error.text) from None
    check_variables(environment)
    for annotation, variable in OPTIONS:
        given = [entry.partition("=")[2] for entry in environment if _is(entry, variable)]
        if any(value not in {"", wanted[annotation]} for value in given):
            raise UsageError.of(
                "docker-variable-option",
                f"the variable {variable} together with a credential spec",
                expected="options of tickets as labels or annotations, since images set variables",
                remedy=f"use --label {annotation}=VALUE",
            )


def _is(entry: str, variable: str) -> bool:
    return entry.partition("=")[0] == variable


def _with_exactly(of: JsonObject, key: str, value: str) -> JsonObject:
    """Return an object of texts with `key`, in this spelling and once; others stay."""
    added = Member(key, json.dumps(key), json.dumps(value))
    return JsonObject((*of.without_exactly(key).members, added))


def _members(parent: JsonObject, key: str) -> JsonObject:
    """Return an object's member that is an object, empty if it is none."""
    found = parent.find(key)
    try:
        return JsonObject.parse(found[-1].text) if found else JsonObject(())
    except NotAnObjectError:
        return JsonObject(())


def _texts(of: JsonObject) -> dict[str, str]:
    return {member.key: str(member.value) for member in of.members if member.value is not None}


def _environment(body: JsonObject) -> list[str]:
    value = _value(body, "Env") or []
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise UsageError.of(
            "docker-wrong-type", _OTHER_TYPE, where="/Env", expected="a list of strings"
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
            _OTHER_TYPE,
            where=f"{where}{key}",
            expected="an object",
        ) from None


def _check_runtime(host_config: JsonObject, runtime: str) -> None:
    found = host_config.find("Runtime")
    # Not a set: a hostile value need not be hashable.
    if not found or found[-1].value in (None, "", runtime):
        return
    # Inspect shows it of any other container, and tools copy it from there.
    if found[-1].value in PLAIN_RUNTIMES and _shim_runs_runc():
        return
    raise UsageError.of(
        "docker-runtime-conflict",
        f"--runtime {found[-1].text[:80]} together with a credential spec",
        expected=f"the runtime {runtime}, which runs {' or '.join(REAL_RUNTIMES)}",
        remedy="leave --runtime out",
    )


def _shim_runs_runc() -> bool:
    """Return whether the launcher's real runtime is runc, as far as can be seen from here."""
    present = (path for path in runtime_paths(REAL_RUNTIMES) if os.access(path, os.X_OK))
    return Path(next(present, "runc")).name == "runc"


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
