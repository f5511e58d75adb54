"""``AdmissionReview`` of ``admission.k8s.io/v1``: what is asked, and the answer."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from credspec.errors import CredspecError
from credspec.kubernetes.webhook.checks import (
    Cluster,
    check_new_pod,
    check_removed_contents,
    check_update,
)
from credspec.kubernetes.webhook.patch import Patch, patch_of_debug_containers, patch_of_pod
from credspec.kubernetes.webhook.refusals import REFUSALS, ReviewMalformedError
from credspec.printable import printable

MAX_REVIEW_BYTES: Final = 8 * 1024 * 1024
"""The largest review that is read; it holds a pod twice, of which the API server takes 3 MiB."""

_API_VERSION: Final = "admission.k8s.io/v1"
_KIND: Final = "AdmissionReview"
_MAX_UID: Final = 128
_MAX_WARNINGS: Final = 8
_MAX_WARNING: Final = 250
_MAX_MESSAGE: Final = 4096
_REASONS: Final = {
    400: "BadRequest",
    403: "Forbidden",
    404: "NotFound",
    422: "Invalid",
    500: "InternalError",
}


class Endpoint(StrEnum):
    """What a review is sent for."""

    MUTATE = "mutate"
    VALIDATE = "validate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A review's request."""

    uid: str
    operation: str
    sub_resource: str
    namespace: str
    pod: dict[str, Any]
    old: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer: the HTTP status, the JSON, and the code of the error, empty if there is none."""

    http_status: int
    document: dict[str, Any]
    code: str = ""


async def answer_review(body: bytes, endpoint: Endpoint, cluster: Cluster) -> Answer:
    """Return the answer to the body of a request; no body makes it raise."""
    uid = ""
    try:
        request = _request_of(body)
        uid = request["uid"]
        review = _review_of(request)
        if endpoint is Endpoint.MUTATE:
            patch = _patched(review)
            if patch.operations and not review.sub_resource:
                await check_removed_contents(review.pod, cluster)
            return _allowed(uid, patch)
        await _check(review, cluster)
        return _allowed(uid, Patch())
    except CredspecError as error:
        return _refused(uid, error)


def refused_review(body: bytes, error: CredspecError) -> Answer:
    """Return the answer that refuses what a body asks for, for an error met elsewhere."""
    try:
        uid = str(_request_of(body)["uid"])
    except CredspecError:
        uid = ""
    return _refused(uid, error)


def _patched(review: Review) -> Patch:
    if review.operation == "CREATE" and not review.sub_resource:
        return patch_of_pod(review.pod)
    if review.operation == "UPDATE" and review.sub_resource == "ephemeralcontainers":
        return patch_of_debug_containers(review.pod, review.old)
    return Patch()


async def _check(review: Review, cluster: Cluster) -> None:
    if review.sub_resource:
        return
    if review.operation == "CREATE":
        await check_new_pod(review.pod, review.namespace, cluster)
    else:
        check_update(review.pod, review.old)


def _request_of(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ReviewMalformedError.of(
            "kubernetes-review-malformed",
            "unable to unmarshall JSON body as an admission review: "
            f"{'nested too deep' if isinstance(error, RecursionError) else 'not JSON'}",
            expected=f"{_KIND} of {_API_VERSION}",
        ) from None
    if not isinstance(document, dict) or document.get("kind", _KIND) != _KIND:
        raise _malformed("it is no AdmissionReview")
    version = document.get("apiVersion", _API_VERSION)
    if version != _API_VERSION:
        raise _malformed(f"it is of {str(version)[:60]!r}")
    request = document.get("request")
    if not isinstance(request, dict):
        raise ReviewMalformedError.of(
            "kubernetes-review-malformed",
            "no 'Request' field in JSON body",
            expected=f"{_KIND} of {_API_VERSION}",
        )
    uid = request.get("uid")
    if not isinstance(uid, str) or not 0 < len(uid) <= _MAX_UID:
        raise _malformed("it has no uid")
    return request


def _review_of(request: dict[str, Any]) -> Review:
    kind = request.get("kind")
    named = kind.get("kind") if isinstance(kind, dict) else None
    group = kind.get("group") if isinstance(kind, dict) else None
    if named != "Pod" or group:
        raise ReviewMalformedError.of(
            "kubernetes-review-not-a-pod",
            f"expected a Pod object, got a {str(named)[:60]}",
            remedy="send the webhook reviews of pods only",
        )
    operation = request.get("operation")
    if operation not in {"CREATE", "UPDATE"}:
        raise ReviewMalformedError.of(
            "kubernetes-review-operation",
            f"unexpected operation {str(operation)[:60]}",
            expected="CREATE or UPDATE",
        )
    pod, old = request.get("object"), request.get("oldObject")
    if not isinstance(pod, dict) or (operation == "UPDATE" and not isinstance(old, dict)):
        raise ReviewMalformedError.of(
            "kubernetes-pod-malformed",
            "unable to unmarshall pod JSON object: the review has none",
        )
    return Review(
        uid=request["uid"],
        operation=operation,
        sub_resource=_text(request.get("subResource")),
        namespace=_text(request.get("namespace")),
        pod=pod,
        old=old if isinstance(old, dict) else {},
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _malformed(why: str) -> ReviewMalformedError:
    return ReviewMalformedError.of(
        "kubernetes-review-malformed",
        f"unable to unmarshall JSON body as an admission review: {why}",
        expected=f"{_KIND} of {_API_VERSION}",
    )


def _allowed(uid: str, patch: Patch) -> Answer:
    response: dict[str, Any] = {"uid": uid, "allowed": True}
    if patch.operations:
        text = json.dumps(patch.operations, separators=(",", ":"))
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(text.encode()).decode()
    if patch.warnings:
        response["warnings"] = [
            printable(each)[:_MAX_WARNING] for each in patch.warnings[:_MAX_WARNINGS]
        ]
    return Answer(http_status=200, document=_review(response))


def _refused(uid: str, error: CredspecError) -> Answer:
    status = next((kind.status for kind in REFUSALS if isinstance(error, kind)), 500)
    response = {
        "uid": uid,
        "allowed": False,
        "status": {
            "code": status,
            "message": str(error)[:_MAX_MESSAGE],
            "reason": _REASONS.get(status, ""),
        },
    }
    # Without its uid the API server takes no answer at all for one to its review.
    return Answer(http_status=200 if uid else status, document=_review(response), code=error.code)


def _review(response: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": _API_VERSION, "kind": _KIND, "response": response}
