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
    is_spec_name,
    service_account_user,
)
from credspec.printable import printable

_API: Final = "authorization.k8s.io/v1"
_SHOWN: Final = 300


class Decision(NamedTuple):
    """What the API server decided, and its reason, which may be empty."""

    is_allowed: bool
    reason: str = ""


async def review_use(
    api: ApiClient, namespace: str, service_account: str, spec_name: str
) -> Decision:
    """Ask whether a service account may ``use`` a GMSACredentialSpec.

    The review is one of the pod's namespace although the resource has none: only so do RoleBindings
    there count. It is local because the right to make those lets nobody ask about rights in the
    whole cluster, and because windows-gmsa asks so.

    A namespace or account that can be none may use nothing.

    Raises:
        UnreachableError: `kubernetes-review-incomplete` if a no is one only because an authorizer
            of the cluster failed; and as `ApiClient.post`.
        CredspecError: `kubernetes-api-answer`; and as `ApiClient.post`.
    """
    if not is_spec_name(namespace) or not is_spec_name(service_account):
        return Decision(is_allowed=False)
    path = f"/apis/{_API}/namespaces/{namespace}/localsubjectaccessreviews"
    user, groups = service_account_user(namespace, service_account)
    answer = await api.post(
        path,
        {
            "apiVersion": _API,
            "kind": "LocalSubjectAccessReview",
            "metadata": {"namespace": namespace},
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
            "kubernetes-api-answer",
            "a review without a decision",
            where=path,
            expected="status.allowed",
        )
    is_allowed = allowed and not status.get("denied")
    failure = _text(status.get("evaluationError"))
    if not is_allowed and failure:
        raise UnreachableError.of(
            "kubernetes-review-incomplete",
            f"an authorizer of the cluster failed: {failure}",
            where=path,
            remedy="see the API server's log",
        )
    return Decision(is_allowed, _text(status.get("reason")))


def _text(value: object) -> str:
    return printable(value[:_SHOWN]) if isinstance(value, str) else ""
