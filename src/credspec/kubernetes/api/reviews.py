"""Whether a pod's service account may use a credential spec, by the cluster's own rules."""

from __future__ import annotations

from typing import Final, NamedTuple

from credspec.errors import CredspecError, UnreachableError
from credspec.kubernetes.api.client import ApiClient
from credspec.kubernetes.objects.names import (
    GROUP,
    PLURAL,
    USE,
    VERSION,
    service_account_user,
)

_API: Final = "authorization.k8s.io/v1"
_PATH: Final = f"/apis/{_API}/subjectaccessreviews"
_SHOWN: Final = 300


class Review(NamedTuple):
    """What the API server decided, and its reason, which may be empty."""

    is_allowed: bool
    reason: str


async def review_use(
    api: ApiClient, namespace: str, service_account: str, spec_name: str
) -> Review:
    """Ask whether a service account may ``use`` a GMSACredentialSpec.

    The review names the pod's namespace although the resource has none: only so do RoleBindings
    there count.

    Raises:
        UnreachableError: `kubernetes-review-incomplete` if a no is one only because an authorizer
            of the cluster failed; and as `ApiClient.post`.
        CredspecError: `kubernetes-answer`; and as `ApiClient.post`.
    """
    user, groups = service_account_user(namespace, service_account)
    answer = await api.post(
        _PATH,
        {
            "apiVersion": _API,
            "kind": "SubjectAccessReview",
            "spec": {
                "user": user,
                "groups": groups,
                "resourceAttributes": {
                    "namespace": namespace,
                    "verb": USE,
                    "group": GROUP,
                    "version": VERSION,
                    "resource": PLURAL,
                    "name": spec_name,
                },
            },
        },
    )
    status = answer.get("status")
    allowed = status.get("allowed") if isinstance(status, dict) else None
    if not isinstance(status, dict) or not isinstance(allowed, bool):
        raise CredspecError.of(
            "kubernetes-answer",
            "a review without a decision",
            where=_PATH,
            expected="status.allowed",
        )
    is_allowed = allowed and not status.get("denied")
    failure = _text(status.get("evaluationError"))
    if not is_allowed and failure:
        raise UnreachableError.of(
            "kubernetes-review-incomplete",
            f"an authorizer of the cluster failed: {failure}",
            where=_PATH,
            remedy="see the API server's log",
        )
    return Review(is_allowed, _text(status.get("reason")))


def _text(value: object) -> str:
    return value[:_SHOWN] if isinstance(value, str) else ""
