"""Which credential spec a pod may have: that of an object which its account may use."""

from __future__ import annotations

import asyncio

from credspec.errors import NotFoundError, NotPermittedError
from credspec.kubernetes.api.client import ApiClient
from credspec.kubernetes.api.reviews import Review, review_use
from credspec.kubernetes.csi.volume_request import Pod
from credspec.kubernetes.objects.credential_spec import missing_object, read_object
from credspec.kubernetes.objects.names import RESOURCE_PATH


class ObjectAccess:
    """Asks the API server, on the node, whatever admitted the pod."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api

    async def document(self, pod: Pod, spec_name: str) -> str:
        """Return the credential spec of an object that a pod's service account may use.

        Both are asked at the same time; what the object says is known only to those who may use it.

        Raises:
            NotPermittedError: `csi-use-not-permitted`.
            NotFoundError: `kubernetes-spec-missing`.
            InvalidSpecError: the object holds no spec that can be used.
            CredspecError: as `ApiClient.get` and `review_use`.
        """
        review, content = await asyncio.gather(
            review_use(self._api, pod.namespace, pod.service_account, spec_name),
            self._api.get(f"{RESOURCE_PATH}/{spec_name}"),
            return_exceptions=True,
        )
        if isinstance(review, BaseException):
            raise review
        if not review.is_allowed:
            raise _not_permitted(pod, spec_name, review)
        if isinstance(content, NotFoundError):
            raise missing_object(spec_name)
        if isinstance(content, BaseException):
            raise content
        return read_object(content).spec.to_text(compact=True)


def _not_permitted(pod: Pod, spec_name: str, review: Review) -> NotPermittedError:
    reason = f", reason: {review.reason!r}" if review.reason else ""
    return NotPermittedError.of(
        "csi-use-not-permitted",
        f"service account {pod.service_account!r} is not authorized to `use` GMSA cred spec "
        f"{spec_name!r}{reason}",
        where=str(pod),
        remedy="bind a Role with the verb use on gmsacredentialspecs.windows.k8s.io/"
        f"{spec_name} to it in the namespace {pod.namespace}",
    )
