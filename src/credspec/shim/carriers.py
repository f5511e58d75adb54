"""Who may choose a container's identity and options of its tickets: the user, never the image.

What counts depends on who wrote the bundle, which the runtime's command line tells: no image has a
part in that. docs/runtimes/who-may-choose.md has the table. Standard library only.
"""

from __future__ import annotations

from credspec.contract import c_json
from credspec.contract.errors import ShimError
from credspec.contract.lease_paths import is_above_tickets, variable_at_tickets
from credspec.contract.names import ANNOTATION, MOUNT_POINT, VARIABLE
from credspec.contract.ticket_options import (
    ANNOTATIONS,
    OPTIONS,
    REQUESTED,
    VARIABLES,
    TicketRequest,
    short_name,
    ticket_request_of,
)
from credspec.shim.oci_bundle import malformed, option_of
from credspec.shim.runtime import Invocation

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself costs milliseconds
    from typing import Any

DOCKER, PODMAN, BUILD, OTHER = "docker", "podman", "build", "other"
REFUSED_HOOK = "/credspec: "
"""What the path of a hook starts with by which Podman's hook has a container fail."""

_MAX_SPEC_CHARACTERS = 128 * 1024
_MANAGER = "io.container.manager"
# How the CRI's implementations mark the container that only holds a pod's namespaces.
_CONTAINER_TYPES = ("io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType")


class Origin:
    """Who wrote a bundle: an engine, the id by which that knows the container, and the directory.

    `BUILD` is Buildah, also within `podman build`; `OTHER` is containerd and whatever else runs an
    OCI runtime.
    """

    def __init__(self, engine: str = OTHER, container: str = "", bundle: str = "") -> None:
        self.engine, self.container, self.bundle = engine, container, bundle

    @classmethod
    def of(cls, invocation: Invocation) -> Origin:
        """Return what a runtime's command line tells."""
        container, bundle = invocation.container, invocation.bundle.rstrip("/")
        *_, storage, name, last = ["", "", *bundle.split("/")]
        # What dockerd calls its namespace of containerd; with userns-remap, moby-UID.GID.
        namespace, _, remapped = (
            invocation.options.get("--root", "").rstrip("/").rpartition("/")[2].partition("-")
        )
        if container.startswith("buildah-") or last.startswith("buildah"):
            engine = BUILD
        elif last == "userdata" and name == container and storage.endswith("-containers"):
            engine = PODMAN
        elif namespace == "moby" and (not remapped or remapped.replace(".", "", 1).isdigit()):
            engine = DOCKER
        else:
            engine = OTHER
        return cls(engine, container, bundle)

    def image_annotations(self, config: dict[str, Any]) -> dict[str, set[str]] | None:
        """Return what the image of a Podman container sets as annotations, None if unknown."""
        from credspec.shim.podman_image import image_annotations

        return image_annotations(config, self.container, self.bundle)


def take_ticket_request(
    config: dict[str, Any], origin: Origin | None = None, *, is_users: bool = False
) -> TicketRequest | None:
    """Return what a container asks for, None if it is no credential spec.

    Carriers of the spec are the annotation, OCI ``windows.credentialSpec`` (the document itself)
    and, with Docker, the environment variable. Our variables are taken out, so that the container
    does not see them. Numbers of users and groups are the agent's: with `is_users`, this process is
    in a user namespace that the agent is not in.

    Raises:
        ShimError: a request that cannot be granted, that may be the image's, or that is misspelt;
            two carriers that disagree.
    """
    try:
        return _ticket_request(config, origin or Origin(), is_users=is_users)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise malformed("members of another type") from None


def _ticket_request(
    config: dict[str, Any], origin: Origin, *, is_users: bool
) -> TicketRequest | None:
    taken = _take_variables(config)
    annotations = config.get("annotations") or {}
    if _is_sandbox(config, annotations, origin):
        return None  # it has the annotations of its pod, and no use for tickets
    _check_annotations(annotations)
    found = _annotated(config, annotations)
    variable = taken.get(VARIABLE)
    if found:
        _check_annotations_count(config, annotations, origin)
    else:
        _check_variables(config)
        if not variable:
            _check_no_tickets_expected(config, origin)
            return None
        _check_variable_counts(config, origin)
    spec = _only([*found, variable] if variable else found)
    options = _options(config, annotations, origin)
    if not found:
        _check_variables_agree(taken, options)
    return ticket_request_of(config, spec, options, is_users=is_users)


def _annotated(config: dict[str, Any], annotations: dict[str, Any]) -> list[str]:
    """Return the specs that a bundle names otherwise than by a variable."""
    document = (config.get("windows") or {}).get("credentialSpec")
    found = [str(annotations[ANNOTATION])] if annotations.get(ANNOTATION) else []
    if document:
        text = document if isinstance(document, str) else c_json.dumps(document).decode()
        found.append(f"raw://{text}")
    return found


def _only(found: list[str]) -> str:
    if len(set(found)) > 1:
        shown = " and ".join(repr(spec[:80]) for spec in found)
        raise ShimError(
            "spec-carriers-disagree", f"credential spec: {shown} in one container; expected one"
        )
    spec = found[0]
    if len(spec) > _MAX_SPEC_CHARACTERS:
        raise ShimError(
            "spec-too-large", f"credential spec: {len(spec)} characters; expected at most 64 KiB"
        )
    return spec


def _take_variables(config: dict[str, Any]) -> dict[str, str]:
    process = config.get("process") or {}
    kept = []
    taken: dict[str, str] = {}
    for entry in process.get("env") or []:
        name, _, value = entry.partition("=")
        if name not in VARIABLES:
            kept.append(entry)
        elif taken.setdefault(name, value) != value:
            raise ShimError(
                "spec-carriers-disagree",
                f"variable {name}: two values in one container; expected one",
            )
    if taken:
        process["env"] = kept
    return taken


def _is_sandbox(config: dict[str, Any], annotations: dict[str, Any], origin: Origin) -> bool:
    marks = [name for name in _CONTAINER_TYPES if annotations.get(name) == "sandbox"]
    if not marks or origin.engine != PODMAN:
        return bool(marks)
    # An image that says so would take away what its user asked for.
    image = origin.image_annotations(config)
    return image is not None and any("sandbox" not in image.get(name, ()) for name in marks)


def _check_annotations(annotations: dict[str, Any]) -> None:
    from credspec.contract.spelling import is_in_domain, is_misspelt

    for name in annotations:
        if name in ANNOTATIONS or name == REQUESTED:
            continue
        right = is_misspelt(name, ANNOTATIONS)
        if right is not None or is_in_domain(name):
            expected = f"did you mean {right}?" if right else f"expected {', '.join(ANNOTATIONS)}"
            raise ShimError("carrier-misspelt", f"annotation {name[:80]!a} is unknown; {expected}")


def _check_variables(config: dict[str, Any]) -> None:
    """Refuse names that are nearly ours; where an annotation counts, variables do not."""
    from credspec.contract.spelling import is_misspelt

    for entry in (config.get("process") or {}).get("env") or []:
        name, _, value = entry.partition("=")
        right = is_misspelt(name, VARIABLES) if value else None
        if right is not None:
            raise ShimError(
                "carrier-misspelt", f"variable {name[:80]!a} is unknown; did you mean {right}?"
            )


def _is_refused(config: dict[str, Any]) -> bool:
    hooks = (config.get("hooks") or {}).get("prestart") or []
    return any(str(hook.get("path")).startswith(REFUSED_HOOK) for hook in hooks)


def _check_no_tickets_expected(config: dict[str, Any], origin: Origin) -> None:
    """Refuse a container without a spec that is set up to find tickets, and would find none."""
    if origin.engine == BUILD:
        return  # what a Dockerfile sets is for containers of the image
    if origin.engine == PODMAN and _is_refused(config):
        return  # Podman's hook has taken the spec out, and fails with its own reason
    mounts = config.get("mounts") or []
    others = [str(m.get("destination", "")) for m in mounts if m.get("type") != "tmpfs"]
    if any(map(is_above_tickets, others)):
        return  # tickets of the user's own
    found = variable_at_tickets((config.get("process") or {}).get("env") or [])
    if found is not None:
        found = f"variable {found}"
    elif tmpfs := [m for m in mounts if _is_tickets_tmpfs(m)]:
        found = f"--tmpfs {str(tmpfs[0].get('destination'))[:80]}"
    if found is not None:
        raise ShimError(
            "spec-missing",
            f"credential spec: none, but the {found} is for a container with one; name the spec "
            f"(--security-opt credentialspec=..., or the annotation {ANNOTATION}), or leave this "
            "out; what the image sets is emptied by -e NAME=",
        )


def _is_tickets_tmpfs(mount: dict[str, Any]) -> bool:
    target = str(mount.get("destination", "")).rstrip("/")
    return mount.get("type") == "tmpfs" and (target == MOUNT_POINT or option_of(mount) is not None)


def _check_variable_counts(config: dict[str, Any], origin: Origin) -> None:
    if origin.engine == BUILD:
        raise _in_build(f"variable {VARIABLE}")
    if origin.engine != DOCKER:
        raise ShimError(
            "spec-carrier-unconfirmed",
            f"credential spec: the variable {VARIABLE} may come from the image, which must not "
            f"choose its identity, and counts with Docker only; use the annotation {ANNOTATION}, "
            f"or take the variable out with {VARIABLE}=",
        )
    if not _is_confirmed(config):
        raise _unconfirmed(f"variable {VARIABLE}")


def _check_annotations_count(
    config: dict[str, Any], annotations: dict[str, Any], origin: Origin
) -> None:
    """Refuse annotations that may be the image's: Podman up to version 4 hands those on."""
    if origin.engine == BUILD:
        raise _in_build(f"annotation {ANNOTATION}")
    if origin.engine != PODMAN and not _is_podmans(config):
        return
    if not _is_confirmed(config):
        raise _unconfirmed(f"annotation {ANNOTATION}")
    image = origin.image_annotations(config) if origin.engine == PODMAN else None
    if image is None:
        raise ShimError(
            "spec-carrier-unconfirmed",
            f"credential spec: the annotation {ANNOTATION} may come from the image, which must not "
            "choose its identity; the container's image is not in Podman's storage, so that this "
            "cannot be found; use an image of the storage itself, not --rootfs or an additional "
            "store",
        )
    for name in ANNOTATIONS:
        if annotations.get(name) and str(annotations[name]) in image.get(name, ()):
            code = "spec-carrier-unconfirmed" if name == ANNOTATION else "option-unconfirmed"
            raise ShimError(
                code,
                f"annotation {name}: the image itself sets it to this value, and an image must not "
                "choose its identity or options; take it out of the image",
            )


def _options(config: dict[str, Any], annotations: dict[str, Any], origin: Origin) -> dict[str, str]:
    """Return the options that count, by annotation: those that no image can set."""
    options = {name: str(annotations[name]) for name, _ in OPTIONS if annotations.get(name)}
    by_short_name = {short_name(name): name for name, _ in OPTIONS}
    for mount in config.get("mounts") or []:
        named = option_of(mount)
        if named is None:
            continue
        shown = f"--tmpfs {MOUNT_POINT}/{named[0][:40]}={named[1][:40]}"
        # Podman follows the image's links to a tmpfs's target.
        if origin.engine != DOCKER:
            raise ShimError(
                "option-unconfirmed",
                f"{shown}: counts with Docker only; use the annotation of that name",
            )
        if named[0] == short_name(REQUESTED):
            continue
        name = by_short_name.get(named[0])
        if name is None:
            raise ShimError(
                "option-invalid", f"{shown}: no such option; expected {', '.join(by_short_name)}"
            )
        if options.setdefault(name, named[1]) != named[1]:
            raise ShimError(
                "option-carriers-disagree",
                f"{name}: {options[name][:40]!r} and {named[1][:40]!r}; expected one value",
            )
    return options


def _check_variables_agree(taken: dict[str, str], options: dict[str, str]) -> None:
    for annotation, variable in OPTIONS:
        value = taken.get(variable)
        if value and options.get(annotation) != value:
            raise ShimError(
                "option-unconfirmed",
                f"variable {variable}: may come from the image, which must not choose options of "
                f"tickets; use the annotation {annotation} (Docker 24 and newer), a label of that "
                f"name with the gateway, or --tmpfs {MOUNT_POINT}/{short_name(annotation)}=VALUE; "
                f"take the image's out with -e {variable}=",
            )


def _in_build(carrier: str) -> ShimError:
    return ShimError(
        "spec-in-build",
        f"credential spec: the {carrier} in a build; images are built without an identity, since a "
        f"Dockerfile must not choose one: take it out of the Dockerfile and the base image, or set "
        f"ENV {VARIABLE}= first",
    )


def _unconfirmed(carrier: str) -> ShimError:
    return ShimError(
        "spec-carrier-unconfirmed",
        f"credential spec: the {carrier} may come from the image, which must not choose its "
        f"identity; confirm it with --tmpfs {MOUNT_POINT}, or with Docker use the gateway",
    )


def _is_podmans(config: dict[str, Any]) -> bool:
    mounts = config.get("mounts") or []
    return (config.get("annotations") or {}).get(_MANAGER) == "libpod" or any(
        mount.get("destination") == "/run/.containerenv" for mount in mounts
    )


def _is_confirmed(config: dict[str, Any]) -> bool:
    """Return whether there is a tmpfs for the tickets, which an image of Docker cannot ask for."""
    return any(
        mount.get("type") == "tmpfs" and mount.get("destination", "").rstrip("/") == MOUNT_POINT
        for mount in config.get("mounts") or []
    )
