"""Which credential specs a pod asks for: by Windows' fields, or by the annotation."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from credspec.contract.spelling import is_in_domain
from credspec.contract.ticket_options import ANNOTATIONS
from credspec.kubernetes.objects.names import ANNOTATION, INJECTED, is_spec_name
from credspec.kubernetes.webhook.pod import (
    containers_of,
    display_name,
    table_in,
    text_in,
)
from credspec.kubernetes.webhook.refusals import PodInvalidError, quoted

NAME_FIELD: Final = "gmsaCredentialSpecName"
CONTENTS_FIELD: Final = "gmsaCredentialSpec"
_KNOWN_ANNOTATIONS: Final = frozenset({*ANNOTATIONS, ANNOTATION, INJECTED})


class WindowsOptions(NamedTuple):
    """The ``windowsOptions`` of a pod or of a container, as far as they are about gMSAs.

    `pointer` is that of the pod's spec or of the container, `kind` and `owner` what it is.
    """

    pointer: str
    kind: str
    owner: str
    name: str | None
    contents: str | None

    @property
    def is_set(self) -> bool:
        """Whether a spec is named or written out here."""
        return self.name is not None or self.contents is not None


class Requested(NamedTuple):
    """What a pod asks for.

    `pod` is the spec of all containers that name none, `of_containers` those that containers name
    themselves, by the pointer of the container. `options` are all the ``windowsOptions``.
    """

    pod: str | None
    of_containers: dict[str, str]
    options: list[WindowsOptions]


def requested_by(pod: dict[str, Any], *kinds: str) -> Requested:
    """Return what a pod asks for; `kinds` are the lists of containers that count.

    Raises:
        PodInvalidError: `kubernetes-spec-name`, `kubernetes-two-specs`,
            `kubernetes-contents-without-name`, `kubernetes-annotation-unknown`.
        ReviewMalformedError: `kubernetes-pod-malformed`.
    """
    annotated = _annotated(pod)
    options = windows_options(pod, *kinds)
    for each in options:
        if each.name is None and each.contents is not None:
            raise PodInvalidError.of(
                "kubernetes-contents-without-name",
                f"{each.kind} {quoted(each.owner)} has a GMSA cred spec set, but does not define "
                "the name of the corresponding resource",
                remedy=f"set {NAME_FIELD}, and leave the contents out",
            )
        if each.name is not None:
            _check_name(each.name, f"{each.pointer}/securityContext/windowsOptions/{NAME_FIELD}")
    named = next((each.name for each in options if each.kind == "pod"), None)
    if annotated is not None and named is not None and annotated != named:
        raise PodInvalidError.of(
            "kubernetes-two-specs",
            f"the annotation {ANNOTATION} names {quoted(annotated)}, "
            f"{NAME_FIELD} names {quoted(named)}",
            where=f"pod {quoted(display_name(pod))}",
            expected="one credential spec for the pod; containers may name others",
            remedy="remove one of the two",
        )
    return Requested(
        annotated if annotated is not None else named,
        {each.pointer: each.name for each in options if each.kind != "pod" and each.name},
        options,
    )


def windows_options(pod: dict[str, Any], *kinds: str) -> list[WindowsOptions]:
    """Return the ``windowsOptions`` that say something about gMSAs, the pod's first."""
    spec = table_in(pod, "spec")
    found = [_options_in(spec, "/spec", "pod", display_name(pod))]
    found += [
        _options_in(container.fields, container.pointer, "container", container.name)
        for container in containers_of(pod, *kinds)
    ]
    return [each for each in found if each is not None and each.is_set]


def _options_in(
    fields: dict[str, Any], pointer: str, kind: str, owner: str
) -> WindowsOptions | None:
    options = table_in(table_in(fields, "securityContext"), "windowsOptions")
    if not options:
        return None
    # The API server refuses an empty name itself, where it counts.
    name = text_in(options, NAME_FIELD) or None
    contents = text_in(options, CONTENTS_FIELD) or None
    return WindowsOptions(pointer, kind, owner, name, contents)


def _annotated(pod: dict[str, Any]) -> str | None:
    annotations = table_in(table_in(pod, "metadata"), "annotations")
    for name in annotations:
        if name not in _KNOWN_ANNOTATIONS and is_in_domain(name):
            raise PodInvalidError.of(
                "kubernetes-annotation-unknown",
                f"the annotation {quoted(name)}",
                where=f"pod {quoted(display_name(pod))}",
                expected=f"{ANNOTATION} with the name of a GMSACredentialSpec",
                remedy="correct its name, or remove it",
            )
    if annotations.get(ANNOTATION) is None:
        return None
    name = text_in(annotations, ANNOTATION)
    _check_name(name, f"annotation {ANNOTATION}")
    return name


def _check_name(name: str, where: str) -> None:
    if not is_spec_name(name):
        raise PodInvalidError.of(
            "kubernetes-spec-name",
            f"{quoted(name[:80])} is not the name of an object",
            where=where,
            expected="lower-case letters, digits, - and ., such as contoso-webapp01",
            remedy="name one of kubectl get gmsacredentialspecs",
        )
