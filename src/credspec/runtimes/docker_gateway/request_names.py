"""Names in a create request that are close to ours: refused, since dockerd would pass them over."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from credspec.errors import UsageError
from credspec.runtimes.docker_gateway.json_object import JsonObject
from credspec.runtimes.shim import ANNOTATION
from credspec.runtimes.spelling import go_equal, is_in_domain, is_misspelt, skeleton
from credspec.runtimes.ticket_options import ANNOTATIONS, REQUESTED, VARIABLES

_OPTION: Final = "credentialspec"
_OF_BODY: Final = ("HostConfig", "Env", "Labels")
_OF_HOST_CONFIG: Final = ("SecurityOpt", "Runtime", "Annotations", "Tmpfs")


def check_members(body: JsonObject, host_configs: Iterable[JsonObject]) -> None:
    """Refuse members that dockerd does not know, but that were meant for one with a spec.

    Raises:
        UsageError: `docker-misspelt-name`.
    """
    for parent, names in ((body, _OF_BODY), *((each, _OF_HOST_CONFIG) for each in host_configs)):
        for member in parent.members:
            right = _nearly(member.key, names)
            if right is not None and _mentions_a_spec(member.text):
                raise _misspelt(f"the member {member.key!r}", right)


def check_security_options(options: Iterable[str]) -> None:
    """Refuse another spelling of ``credentialspec=``.

    Raises:
        UsageError: `docker-misspelt-name`.
    """
    for option in options:
        name, equals, _ = option.partition("=")
        if equals and name.lower() != _OPTION and skeleton(name) == _OPTION:
            raise _misspelt(f"the security option {name!r}", f"{_OPTION}=")


def check_annotations(annotations: JsonObject, what: str = "annotation") -> None:
    """Refuse annotations, or labels, that are nearly ours or that do not exist.

    Raises:
        UsageError: `docker-misspelt-name`; `docker-repeated-key` for one that is there twice.
    """
    seen = set()
    for key in (member.key for member in annotations.members):
        if key in ANNOTATIONS:
            if key in seen:
                raise UsageError.of(
                    "docker-repeated-key",
                    f"the {what} {key} is there more than once",
                    expected="each key once",
                )
            seen.add(key)
            continue
        if key == REQUESTED:
            continue  # the gateway's own, which pack replaces
        right = is_misspelt(key, ANNOTATIONS)
        if right is not None or is_in_domain(key):
            raise _misspelt(f"the {what} {key!r}", right or " or ".join(ANNOTATIONS))


def check_labels(labels: JsonObject, reference: str) -> None:
    """Refuse labels as `check_annotations`, and one that names another spec than `reference`.

    Raises:
        UsageError: as there; `docker-label-spec`.
    """
    check_annotations(labels, "label")
    for member in labels.members:
        if member.key == ANNOTATION and member.value not in (None, "", reference):
            raise UsageError.of(
                "docker-label-spec",
                f"the label {ANNOTATION}",
                expected="a label with options of the tickets only",
                remedy="name the spec by --security-opt credentialspec=...",
            )


def check_variables(environment: Iterable[str]) -> None:
    """Refuse variables that are nearly ours.

    Raises:
        UsageError: `docker-misspelt-name`.
    """
    for entry in environment:
        name, _, value = entry.partition("=")
        right = is_misspelt(name, VARIABLES) if value else None
        if right is not None:
            raise _misspelt(f"the variable {name!r}", right)


def _nearly(key: str, names: Iterable[str]) -> str | None:
    for name in names:
        if not go_equal(key, name) and skeleton(key) == skeleton(name):
            return name
    return None


def _mentions_a_spec(text: str) -> bool:
    return any(mark in skeleton(text) for mark in (_OPTION, "credspec"))


def _misspelt(found: str, right: str) -> UsageError:
    return UsageError.of(
        "docker-misspelt-name",
        f"{found} is unknown",
        expected=right,
        remedy=f"did you mean {right}?",
    )
