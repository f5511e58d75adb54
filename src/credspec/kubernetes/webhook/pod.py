"""A pod as the API server sends it: JSON, of which no member need have the type it should."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from credspec.kubernetes.objects.names import DRIVER, SPEC_ATTRIBUTE
from credspec.kubernetes.webhook.refusals import ReviewMalformedError

CONTAINERS: Final = ("initContainers", "containers")
"""The lists of containers that a pod is created with."""
EPHEMERAL: Final = "ephemeralContainers"
"""The list of containers that are added for debugging."""

_OS_LABELS: Final = ("kubernetes.io/os", "beta.kubernetes.io/os")
WINDOWS, LINUX = "windows", "linux"


class Container(NamedTuple):
    """A container, and its place in the pod."""

    kind: str
    position: int
    fields: dict[str, Any]

    @property
    def pointer(self) -> str:
        """The JSON pointer of the container."""
        return f"/spec/{self.kind}/{self.position}"

    @property
    def name(self) -> str:
        """The container's name, empty if it has none."""
        return text_in(self.fields, "name")


def table_in(table: dict[str, Any], key: str) -> dict[str, Any]:
    """Return an object that is a member, empty if it is missing or null.

    Raises:
        ReviewMalformedError: `kubernetes-pod-malformed` if it is something else.
    """
    value = table.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise malformed(key, "an object")
    return value


def list_in(table: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Return a list of objects that is a member, empty if it is missing or null.

    Raises:
        ReviewMalformedError: `kubernetes-pod-malformed` if it is something else.
    """
    value = table.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise malformed(key, "a list of objects")
    return value


def text_in(table: dict[str, Any], key: str) -> str:
    """Return a text that is a member, empty if it is missing or null.

    Raises:
        ReviewMalformedError: `kubernetes-pod-malformed` if it is something else.
    """
    value = table.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise malformed(key, "a text")
    return value


def number_in(table: dict[str, Any], key: str) -> int | None:
    """Return a whole number that is a member, None if it is missing or null.

    Raises:
        ReviewMalformedError: `kubernetes-pod-malformed` if it is something else.
    """
    value = table.get(key)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise malformed(key, "a whole number")
    return value


def malformed(key: str, expected: str) -> ReviewMalformedError:
    """Return the error for a member of another type, in windows-gmsa's words."""
    return ReviewMalformedError.of(
        "kubernetes-pod-malformed",
        f"unable to unmarshall pod JSON object: {key} is not {expected}",
        remedy="correct that member of the pod",
    )


def containers_of(pod: dict[str, Any], *kinds: str) -> Iterator[Container]:
    """Return the containers of the lists that are named, by default those of a new pod."""
    spec = table_in(pod, "spec")
    for kind in kinds or CONTAINERS:
        for index, fields in enumerate(list_in(spec, kind)):
            yield Container(kind, index, fields)


def credential_volumes(pod: dict[str, Any]) -> dict[str, str]:
    """Return the names of the pod's volumes that hold tickets, with the spec of each."""
    found = {}
    for volume in list_in(table_in(pod, "spec"), "volumes"):
        csi = table_in(volume, "csi")
        if csi.get("driver") == DRIVER:
            spec = table_in(csi, "volumeAttributes").get(SPEC_ATTRIBUTE)
            found[text_in(volume, "name")] = spec if isinstance(spec, str) else ""
    return found


def display_name(pod: dict[str, Any]) -> str:
    """Return the pod's name, or what its name will begin with."""
    metadata = table_in(pod, "metadata")
    return text_in(metadata, "name") or text_in(metadata, "generateName")


def service_account(pod: dict[str, Any]) -> str:
    """Return the pod's service account."""
    return text_in(table_in(pod, "spec"), "serviceAccountName") or "default"


def stated_os(pod: dict[str, Any]) -> str:
    """Return the pod's ``spec.os.name``, empty if it states none."""
    return text_in(table_in(table_in(pod, "spec"), "os"), "name")


def is_for_windows(pod: dict[str, Any]) -> bool:
    """Return whether a pod can run on Windows only: by its OS, node selector or node affinity."""
    os = stated_os(pod)
    if os:
        return os == WINDOWS
    spec = table_in(pod, "spec")
    selector = table_in(spec, "nodeSelector")
    if any(selector.get(label) == WINDOWS for label in _OS_LABELS):
        return True
    affinity = table_in(table_in(spec, "affinity"), "nodeAffinity")
    required = table_in(affinity, "requiredDuringSchedulingIgnoredDuringExecution")
    terms = list_in(required, "nodeSelectorTerms")
    # A node that fits one of the terms is enough.
    return bool(terms) and all(_selects_windows(term) for term in terms)


def _selects_windows(term: dict[str, Any]) -> bool:
    return any(
        expression.get("key") in _OS_LABELS
        and expression.get("operator") == "In"
        and expression.get("values") == [WINDOWS]
        for expression in list_in(term, "matchExpressions")
    )
