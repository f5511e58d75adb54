"""A Swarm service with ``--credential-spec``, made into one whose tasks Linux dockerd starts.

dockerd would hand the spec to each task's container as a security option, which it refuses on
Linux itself. In its place a task gets the variable and the tmpfs that the shim takes a spec from,
and a sysctl that no other runtime takes: where the shim is not the node's default runtime, the
task fails and says so, and never runs without its identity.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from credspec.contract.container_environment import with_lease_variables
from credspec.contract.lease_environment import KEYTAB_ENVIRONMENT, LEASE_ENVIRONMENT
from credspec.contract.names import MOUNT_POINT, NEEDS_RUNTIME, VARIABLE
from credspec.contract.ticket_options import (
    KEYTAB,
    OPTIONS,
    VARIABLES,
    short_name,
)
from credspec.errors import CredspecError, InvalidSpecError, UsageError
from credspec.gateway.create_request import ApiVersion, check_options_given
from credspec.gateway.json_object import JsonObject, NotAnObjectError
from credspec.gateway.request_names import check_labels
from credspec.gateway.service_record import (
    TASK,
    as_requested,
    is_tickets_mount,
    list_of,
    objects,
    with_note,
)
from credspec.spec.document import CredentialSpec
from credspec.spec.reference import SpecReference, parse_reference, registry_reference

_TARGET: Final = re.compile(
    r"(?:https?://[^/]*)?(?:/v(\d{1,3})\.(\d{1,3}))?/services/(?:create|[^/?]+/update)(?:\?.*)?"
)
_WINDOWS: Final = "windows"  # in a constraint, or a platform
_NAMES: Final = {"file": "File", "config": "Config"}
_SYSCTLS_SINCE: Final = (1, 40)
# What the id of a config looks like; anything else never becomes a path.
_CONFIG_ID: Final = re.compile(r"[0-9a-z]{1,64}")


@dataclass(frozen=True, slots=True)
class ServiceTarget:
    """A request that creates or updates a service: `version` is None if it states none."""

    version: ApiVersion | None


def parse_service_target(method: str, target: str) -> ServiceTarget | None:
    """Return what a request does with a service; None for any other request."""
    match = _TARGET.fullmatch(target) if method == "POST" else None
    if match is None:
        return None
    return ServiceTarget((int(match[1]), int(match[2])) if match[1] else None)


@dataclass(frozen=True, slots=True)
class ServiceBody:
    """The body of a request with a credential spec: a name of a file, or a config's id."""

    service: JsonObject
    container: JsonObject
    spec: dict[str, Any]

    @classmethod
    def unpack(cls, data: bytes | bytearray) -> Self | None:
        """Read a body; None if the daemon is to have it as it is.

        That is one without a credential spec, one for Windows nodes, and one that is no service.

        Raises:
            InvalidSpecError: the spec is none that a service on Linux can have:
                `spec-reference-registry`, `spec-reference-invalid`, `spec-config-missing`.
            UsageError: `docker-service-carrier` if the service names a spec otherwise, too.
        """
        try:
            service = JsonObject.parse(data.decode("utf-8", "surrogateescape"))
            new = _spec_of(_container_of(service))
            service = as_requested(service) or service
            task = objects(service, TASK[0])
            container = _container_of(service)
            # A client that did not see its former request gives a new spec beside its traces.
            given = new or _spec_of(container)
            if not given or _WINDOWS in str(objects(task, "Placement")).lower():
                return None
            _check_own_carriers(container)
        except (NotAnObjectError, ValueError):
            return None  # dockerd words this best
        if "registry" in given:
            raise registry_reference()
        if {*given} not in ({"file"}, {"config"}) or not all(
            isinstance(value, str) for value in given.values()
        ):
            raise InvalidSpecError.of(
                "spec-reference-invalid",
                f"the credential spec of a service has {', '.join(sorted(given))}",
                expected="either a file or a config",
            )
        if not _CONFIG_ID.fullmatch(given.get("config", "x")):
            raise _no_config(given["config"])
        return cls(service, container, given)

    @property
    def image(self) -> str:
        """The name of the image, empty if there is none."""
        found = self.container.find("Image")
        return str(found[-1].value) if found else ""

    @property
    def config(self) -> str | None:
        """The id of the config that holds the spec, None if it is a file of each node."""
        return self.spec.get("config")

    def reference(self, config: bytes | bytearray | None) -> SpecReference:
        """Return what tasks ask for, given dockerd's answer about the config.

        Raises:
            InvalidSpecError: `spec-config-missing`; as `CredentialSpec.from_bytes`.
        """
        if "file" in self.spec:
            return parse_reference(f"file://{self.spec['file']}")
        try:
            data = base64.b64decode(json.loads(config or b"")["Spec"]["Data"], validate=True)
        except (ValueError, TypeError, KeyError, RecursionError):
            raise _no_config(self.spec["config"]) from None
        return SpecReference("raw", CredentialSpec.from_bytes(data).to_text(compact=True))

    def pack(
        self, reference: SpecReference, version: ApiVersion, image_environment: Sequence[str] = ()
    ) -> bytes:
        """Return the body as dockerd takes it.

        `image_environment` are the variables that the image sets, as far as dockerd has it here.

        Raises:
            UsageError: `docker-service-version`, `option-invalid`.
        """
        if version < _SYSCTLS_SINCE:
            raise UsageError.of(
                "docker-service-version",
                f"a service with a credential spec by API {version[0]}.{version[1]}",
                expected="API 1.40 or newer (Docker 19.03)",
                remedy="use a newer client",
            )
        options = _options(self.container, reference)
        container = self.container
        before = _environment(container)
        has_keytab = options[KEYTAB[0]].lower() in {"true", "1"}
        tickets = LEASE_ENVIRONMENT | (KEYTAB_ENVIRONMENT if has_keytab else {})
        environment = with_lease_variables(before, tickets, image_environment)
        added = [entry.partition("=")[0] for entry in environment if entry not in before]
        environment.append(f"{VARIABLE}={reference}")
        # Also without a value, so that one that the image sets does not count.
        environment += [f"{variable}={options[name]}" for name, variable in OPTIONS]
        container = container.with_member("Env", json.dumps(environment))
        targets = [MOUNT_POINT]
        targets += [f"{MOUNT_POINT}/{short_name(k)}={v}" for k, v in options.items() if v]
        mounts = [*list_of(container, "Mounts"), *map(_tmpfs, targets)]
        container = container.with_member("Mounts", f"[{','.join(mounts)}]")
        sysctls = objects(container, "Sysctls").with_member(NEEDS_RUNTIME, '"1"')
        container = container.with_member("Sysctls", str(sysctls))
        privileges = objects(container, "Privileges").with_member("CredentialSpec", "null")
        container = container.with_member("Privileges", str(privileges))
        # dockerd takes a config that is of the runtime only together with the spec.
        configs = list_of(container, "Configs")
        moved = [text for text in configs if _is_of_runtime(text)]
        if moved:
            kept = [text for text in configs if text not in moved]
            container = container.with_member("Configs", f"[{','.join(kept)}]")
        task = objects(self.service, TASK[0]).with_member(TASK[1], str(container))
        service = self.service.with_member(TASK[0], str(task))
        spec = {_NAMES.get(key, key): value for key, value in self.spec.items()}
        packed = with_note(service, spec, added, [json.loads(text) for text in moved])
        return packed.encode("utf-8", "surrogateescape")


def _container_of(service: JsonObject) -> JsonObject:
    return objects(objects(service, TASK[0]), TASK[1])


def _spec_of(container: JsonObject) -> dict[str, Any]:
    """Return the members of a credential spec that say something, by their names in lower case."""
    spec = objects(objects(container, "Privileges"), "CredentialSpec")
    return {member.key.lower(): member.value for member in spec.members if member.value}


def _is_of_runtime(text: str) -> bool:
    found = JsonObject.parse(text).find("Runtime")
    return bool(found) and found[-1].value is not None


def _tmpfs(target: str) -> str:
    return json.dumps({"Type": "tmpfs", "Target": target})


def _check_own_carriers(container: JsonObject) -> None:
    """Refuse what would name a spec a second time."""
    names = [entry.partition("=")[0] for entry in _environment(container)]
    found = next((f"the variable {name}" for name in names if name in VARIABLES), None)
    if found is None and any(map(is_tickets_mount, list_of(container, "Mounts"))):
        found = f"a mount at {MOUNT_POINT}"
    if found is not None:
        raise UsageError.of(
            "docker-service-carrier",
            f"{found} together with --credential-spec",
            expected="one of both; options of tickets as labels of the container",
            remedy="leave it out",
        )


def _environment(container: JsonObject) -> list[str]:
    found = container.find("Env")
    value = (found[-1].value if found else None) or []
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise NotAnObjectError("Env")
    return value


def _options(container: JsonObject, reference: SpecReference) -> dict[str, str]:
    """Return the options of the tickets, by labels of the container."""
    labels = objects(container, "Labels")
    check_labels(labels, str(reference))
    texts = {m.key: str(m.value) for m in labels.members if m.value is not None}
    wanted = {name: texts.get(name, "") for name, _ in OPTIONS}
    check_options_given(wanted, _environment(container))
    return wanted


def _no_config(config: str) -> CredspecError:
    return InvalidSpecError.of(
        "spec-config-missing",
        f"invalid credential spec: there is no config {config[:64]!r}",
        remedy="make it with docker config create NAME FILE",
    )
