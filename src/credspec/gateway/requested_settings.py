"""A container's settings as its client requested them, out of those that dockerd keeps.

In the place of ``credentialspec=`` the gateway gives a container a runtime, annotations, variables
and tmpfs mounts. Tools read those by inspect and create containers from them, so they are to see
what they asked for. Most requests can be derived from what became of them; for the others, and for
all that carry the spec in variables, which an image sets as well, the gateway adds a record: an
annotation, or a tmpfs mount with older APIs. No image can set either of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from credspec.contract.names import ANNOTATION, MOUNT_POINT, VARIABLE
from credspec.contract.spelling import DOMAIN
from credspec.contract.ticket_options import (
    ANNOTATIONS,
    OPTIONS,
    REQUESTED,
    VARIABLES,
    short_name,
)
from credspec.errors import CredspecError
from credspec.gateway.lease_variables import is_default, is_lease_variable
from credspec.gateway.request_record import (
    Record,
    is_lease_mount,
    name_of,
    names_a_spec,
)
from credspec.spec.reference import SpecReference, parse_reference, parse_security_options

PLAIN_RUNTIMES: Final = ("runc", "io.containerd.runc.v2")
"""Docker's own runtimes, which are runc."""
RECORD_MOUNT: Final = f"{MOUNT_POINT}/{short_name(REQUESTED)}="
"""What the name of a tmpfs mount that holds a record starts with."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the gateway changes of a container; `runtime` is empty for the daemon's default."""

    security_options: tuple[str, ...]
    runtime: str
    annotations: dict[str, str]
    tmpfs: dict[str, str]
    environment: tuple[str, ...]
    labels: dict[str, str]

    def reference(self) -> SpecReference | None:
        """Return the spec that the option names, or the annotation if there is no option.

        Raises:
            InvalidSpecError: a value that is not a reference.
        """
        reference, _ = parse_security_options(self.security_options)
        if reference is None and self.annotations.get(ANNOTATION):
            reference = parse_reference(self.annotations[ANNOTATION])
        return reference

    def carried_spec(self, runtime: str) -> str | None:
        """Return the spec that the shim, registered as `runtime`, takes from these settings."""
        if self.runtime != runtime:
            return None
        if self.annotations.get(ANNOTATION):
            return self.annotations[ANNOTATION]
        return self.variable_spec()

    def variable_spec(self) -> str | None:
        """Return the spec in a variable, which counts together with a tmpfs mount."""
        if MOUNT_POINT not in self.tmpfs:
            return None
        values = [e.partition("=")[2] for e in self.environment if name_of(e) == VARIABLE]
        return (values or [""])[-1] or None

    def without_record(self) -> Settings:
        """Return them without what the gateway itself noted."""
        return replace(
            self,
            annotations={k: v for k, v in self.annotations.items() if k != REQUESTED},
            tmpfs={k: v for k, v in self.tmpfs.items() if not k.startswith(RECORD_MOUNT)},
        )


def requested(settings: Settings, runtime: str) -> Settings | None:
    """Return what a client asked for whose container has these settings.

    None if there is nothing that the gateway has added. `runtime` is the name of the shim.
    """
    spec = settings.carried_spec(runtime)
    if spec is None:
        return None
    record = recorded(settings, spec) or _inferred(settings, spec)
    if record is None or record.runtime not in {"", runtime}:
        return None
    found = _restored(settings, record)
    return found if _means(found, spec) else None


def recorded(settings: Settings, spec: str) -> Record | None:
    """Return the record in the settings of a container that carries a spec, None without one."""
    if settings.annotations.get(ANNOTATION):
        return Record.decode(settings.annotations.get(REQUESTED, ""), spec)
    mounts = [key for key in settings.tmpfs if key.startswith(RECORD_MOUNT)]
    if len(mounts) != 1:
        return None
    return Record.decode(mounts[0].removeprefix(RECORD_MOUNT), spec)


def record_of(asked: Settings, sent: Settings, runtime: str) -> Record | None:
    """Return the record that `sent` needs, so that `requested` finds `asked`; None if none.

    With the spec in variables there is always one.
    """
    if sent.annotations.get(ANNOTATION):
        found = requested(sent, runtime)
        if found is not None and _is_same(found, asked):
            return None
    before, after = set(asked.environment), set(sent.environment)
    added = {name_of(entry): None for entry in sent.environment if entry not in before}
    return Record(
        tuple((i, o) for i, o in enumerate(asked.security_options) if names_a_spec(o)),
        "" if asked.runtime in PLAIN_RUNTIMES else asked.runtime,
        {k: v for k, v in asked.annotations.items() if k in ANNOTATIONS and v},
        {k: v for k, v in asked.tmpfs.items() if is_lease_mount(k)},
        tuple(added),
        tuple(
            (i, e)
            for i, e in enumerate(asked.environment)
            if e not in after or name_of(e) in VARIABLES
        ),
    )


def added_variables(settings: Settings, runtime: str) -> frozenset[str]:
    """Return the names of variables that the gateway set in a container."""
    found = requested(settings, runtime)
    if found is not None:
        kept = set(found.environment)
        return frozenset(name_of(e) for e in settings.environment if e not in kept)
    if settings.carried_spec(runtime) is None:
        return frozenset()
    # Made without the gateway, or by an older one.
    ours = (e for e in settings.environment if name_of(e) in VARIABLES or is_default(e))
    return frozenset(map(name_of, ours))


def with_image_variables(
    found: Settings, settings: Settings, image_environment: list[str]
) -> Settings:
    """Return requested settings with the image's variables that the gateway's own replaced."""
    kept = {name_of(entry) for entry in found.environment}
    gone = {name_of(entry) for entry in settings.environment} - kept
    missing = tuple(
        e
        for e in image_environment
        # A name without value is what a commit left of the gateway's own.
        if name_of(e) in gone and is_lease_variable(name_of(e)) and "=" in e
    )
    return replace(found, environment=found.environment + missing)


def listed_annotations(annotations: dict[str, str], labels: dict[str, str]) -> dict[str, str]:
    """Return a container's annotations as requested, given what a list of containers has."""
    record = Record.decode(annotations.get(REQUESTED, ""), annotations.get(ANNOTATION, ""))
    others = {k: v for k, v in annotations.items() if k not in (*ANNOTATIONS, REQUESTED)}
    if record is not None:
        return others | record.annotations
    return others | _own_options(annotations, labels)


def _inferred(settings: Settings, spec: str) -> Record | None:
    """Return the record of a request for only the option, from which most are made."""
    # Variables may be the image's, and what only the user set is no sign of the gateway.
    if not settings.annotations.get(ANNOTATION) or not any(map(is_default, settings.environment)):
        return None
    return Record(
        ((len(settings.security_options), f"credentialspec={spec}"),),
        "",
        _own_options(settings.annotations, settings.labels),
        {},
        tuple(name_of(entry) for entry in settings.environment if is_default(entry)),
        (),
    )


def _own_options(annotations: dict[str, str], labels: dict[str, str]) -> dict[str, str]:
    """Return the options in annotations that are not there for a label's sake."""
    return {
        name: annotations[name]
        for name, _ in OPTIONS
        if name in annotations and labels.get(name) != annotations[name]
    }


def _restored(settings: Settings, record: Record) -> Settings:
    is_annotated = bool(settings.annotations.get(ANNOTATION))
    annotations = {k: v for k, v in settings.annotations.items() if not k.startswith(f"{DOMAIN}/")}
    # credspec's variables that are in the image have no effect, and are refused in a request.
    gone = {*record.added, *VARIABLES}
    tmpfs = settings.tmpfs if is_annotated else _other_mounts(settings.tmpfs)
    return replace(
        settings,
        security_options=_inserted(settings.security_options, record.security_options),
        runtime=record.runtime or PLAIN_RUNTIMES[0],
        annotations=annotations | record.annotations,
        tmpfs=tmpfs if is_annotated else tmpfs | record.tmpfs,
        environment=_inserted(
            tuple(e for e in settings.environment if name_of(e) not in gone), record.dropped
        ),
    )


def _other_mounts(tmpfs: dict[str, str]) -> dict[str, str]:
    return {k: v for k, v in tmpfs.items() if not is_lease_mount(k)}


def _inserted(items: tuple[str, ...], inserted: tuple[tuple[int, str], ...]) -> tuple[str, ...]:
    result = list(items)
    for index, item in inserted:
        result.insert(index, item)
    return tuple(result)


def _means(found: Settings, spec: str) -> bool:
    """Return whether settings ask for just the spec that the container has."""
    try:
        reference = found.reference()
        return reference is not None and str(reference) == str(parse_reference(spec))
    except CredspecError:
        return False


def _is_same(found: Settings, asked: Settings) -> bool:
    runtimes = {"" if s.runtime in PLAIN_RUNTIMES else s.runtime for s in (found, asked)}
    annotations = {k: v for k, v in asked.annotations.items() if v or k not in ANNOTATIONS}
    return (
        len(runtimes) == 1
        and found.security_options == asked.security_options
        and found.annotations == annotations
        and found.tmpfs == asked.tmpfs
        and found.environment == asked.environment
    )
