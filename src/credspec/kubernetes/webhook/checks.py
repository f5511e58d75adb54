"""What the webhook asks the cluster before it lets a pod pass, and changes that it refuses.

It says early what the CSI driver would say on the node.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final, Protocol

from credspec.errors import CredspecError
from credspec.kubernetes.api.reviews import Decision
from credspec.kubernetes.objects.credential_spec import (
    EmptyObjectError,
    compact_contents,
    credspec_of,
    missing_object,
)
from credspec.kubernetes.objects.names import ANNOTATION
from credspec.kubernetes.webhook.pod import (
    LINUX,
    credential_volumes,
    display_name,
    is_for_windows,
    service_account,
    stated_os,
    table_in,
    text_in,
)
from credspec.kubernetes.webhook.recent_grants import RecentGrants
from credspec.kubernetes.webhook.refusals import (
    ClusterError,
    NotAuthorizedError,
    PodInvalidError,
    SpecEmptyError,
    SpecMissingError,
    quoted,
)
from credspec.kubernetes.webhook.requested import WindowsOptions, requested_by, windows_options
from credspec.spec.document import CredentialSpec

_MAX_SPECS: Final = 16


class Cluster(Protocol):
    """The API server, as far as the webhook asks it; failures are `CredspecError`.

    `grants` is what its last answers allowed.
    """

    grants: RecentGrants

    async def credential_spec(self, name: str) -> dict[str, Any] | None:
        """Return the object of that name, None if there is none."""

    async def may_use(self, namespace: str, account: str, name: str) -> Decision:
        """Return whether a service account may use the object in a namespace."""


async def check_new_pod(pod: dict[str, Any], namespace: str, cluster: Cluster) -> None:
    """Refuse a pod that could not be given what it asks for.

    Raises:
        SpecMissingError: `kubernetes-spec-missing`.
        NotAuthorizedError: `kubernetes-spec-not-authorized`.
        SpecEmptyError: `kubernetes-spec-empty`.
        PodInvalidError: `kubernetes-spec-invalid`, `kubernetes-contents-differ`,
            `kubernetes-too-many-specs`, and those of `requested_by`.
        ClusterError: `kubernetes-spec-unreadable`.
    """
    if is_for_windows(pod):
        return
    requested = requested_by(pod)
    specs = dict.fromkeys(spec for spec in credential_volumes(pod).values() if spec)
    specs |= dict.fromkeys(spec for spec in requested.of_containers.values())
    if requested.pod is not None:
        specs[requested.pod] = None
    if len(specs) > _MAX_SPECS:
        raise PodInvalidError.of(
            "kubernetes-too-many-specs",
            f"the pod asks for {len(specs)} credential specs",
            expected=f"at most {_MAX_SPECS}",
        )
    account = service_account(pod)
    compared = {each.name for each in requested.options if each.contents is not None}
    specs = {
        spec: None
        for spec in specs
        if spec in compared or not cluster.grants.holds(namespace, account, spec)
    }
    # In this order whatever is answered first: the same pod is always refused for the same reason.
    found = await asyncio.gather(
        *(_usable(cluster, namespace, account, spec) for spec in specs), return_exceptions=True
    )
    documents = {}
    for spec, result in zip(specs, found, strict=True):
        if isinstance(result, BaseException):
            raise result
        documents[spec] = result
    for options in requested.options:
        if options.name is not None and options.contents is not None:
            _check_contents(options, documents[options.name])


async def check_removed_contents(pod: dict[str, Any], cluster: Cluster) -> None:
    """Refuse contents that are not those of the object, before the patch takes them out of a pod.

    Raises:
        PodInvalidError: `kubernetes-contents-differ`.
        ClusterError: `kubernetes-spec-unreadable`.
    """
    if stated_os(pod) != LINUX:
        return
    for options in windows_options(pod):
        if options.name is None or options.contents is None:
            continue
        try:
            document = await cluster.credential_spec(options.name)
        except CredspecError as error:
            raise _unreadable(options.name, error) from None
        if document is not None:  # else the pod is refused for that when it is validated
            _check_contents(options, document)


async def _usable(cluster: Cluster, namespace: str, account: str, name: str) -> dict[str, Any]:
    asked: tuple[dict[str, Any] | None, Decision]
    try:
        asked = await asyncio.gather(
            cluster.credential_spec(name), cluster.may_use(namespace, account, name)
        )
    except CredspecError as error:
        raise _unreadable(name, error) from None
    document, decision = asked
    if document is None:
        raise SpecMissingError(*missing_object(name).problems)
    if not decision.is_allowed:
        reason = f", reason: {quoted(decision.reason)}" if decision.reason else ""
        raise NotAuthorizedError.of(
            "kubernetes-spec-not-authorized",
            f"service account {quoted(account)} is not authorized to `use` GMSA cred spec "
            f"{quoted(name)}{reason}",
            remedy=f"bind a role with the verb use to it in the namespace {namespace}: "
            "credspec convert --to kubernetes --role prints one",
        )
    try:
        CredentialSpec.from_json(credspec_of(document))
    except EmptyObjectError:
        raise SpecEmptyError.of(
            "kubernetes-spec-empty",
            f"cred spec {name} does not have a credspec key",
            remedy="the credential spec belongs beside metadata, under credspec",
        ) from None
    except CredspecError as error:
        raise PodInvalidError.of(
            "kubernetes-spec-invalid",
            f"cred spec {name} is not valid: {error}",
            remedy="correct it; credspec lint reads the object as kubectl prints it",
        ) from None
    cluster.grants.add(namespace, account, name)
    return document


def _unreadable(name: str, error: CredspecError) -> ClusterError:
    return ClusterError.of(
        "kubernetes-spec-unreadable",
        f"unable to retrieve the contents of cred spec {name}: {error}",
        remedy="try again; if it lasts, look at the log of the webhook and at the API server",
    )


def _check_contents(options: WindowsOptions, document: dict[str, Any]) -> None:
    contents, expected = options.contents or "", compact_contents(document)
    if contents == expected:
        return
    why = ""
    try:
        if json.loads(contents) == json.loads(expected):
            return
    except (ValueError, RecursionError):
        why = ": not JSON"
    raise PodInvalidError.of(
        "kubernetes-contents-differ",
        f"the GMSA cred spec contents for {options.kind} {quoted(options.owner)} does not match "
        f"the contents of GMSA resource {quoted(options.name or '')}{why}",
        remedy="leave the contents out",
    )


def check_update(pod: dict[str, Any], old: dict[str, Any]) -> None:
    """Refuse to change which specs a pod asks for.

    Raises:
        NotAuthorizedError: `kubernetes-pod-immutable`.
        ReviewMalformedError: `kubernetes-pod-malformed`.
    """
    now, before = _by_place(pod), _by_place(old)
    for place in sorted(now.keys() | before.keys()):
        one, other = now.get(place), before.get(place)
        changed = [
            word
            for word, is_same in (
                ("name", (one and one.name) == (other and other.name)),
                ("contents", (one and one.contents) == (other and other.contents)),
            )
            if not is_same
        ]
        some = one or other
        if changed and some is not None:
            raise _immutable(" and ".join(changed), some.kind, some.owner)
    if _annotation(pod) != _annotation(old):
        raise _immutable("name", "pod", display_name(pod))


def _by_place(pod: dict[str, Any]) -> dict[str, WindowsOptions]:
    return {each.pointer: each for each in windows_options(pod)}


def _annotation(pod: dict[str, Any]) -> str:
    return text_in(table_in(table_in(pod, "metadata"), "annotations"), ANNOTATION)


def _immutable(changed: str, kind: str, owner: str) -> NotAuthorizedError:
    return NotAuthorizedError.of(
        "kubernetes-pod-immutable",
        f"cannot update an existing pod's GMSA settings (GMSA {changed} modified on {kind} "
        f"{quoted(owner)})",
        remedy="make a new pod",
    )
