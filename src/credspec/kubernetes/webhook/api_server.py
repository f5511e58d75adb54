"""The cluster's API server, asked as the pod's own service account."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import aiohttp

from credspec.errors import NoAnswerError, NotPermittedError, UnreachableError, UsageError
from credspec.kubernetes.objects.names import (
    GROUP,
    PLURAL,
    RESOURCE_PATH,
    USE,
    VERSION,
    is_spec_name,
    service_account_user,
)
from credspec.kubernetes.webhook.checks import Decision

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its token, the API server's authority and its namespace."""

_SECONDS: Final = 4.0
_MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
_MAX_CONNECTIONS: Final = 64
_OK: Final = frozenset({200, 201})
_NOT_FOUND: Final = 404
_WHERE: Final = "API server"


class ApiAnswer(NamedTuple):
    """The status of an answer and the JSON object in it."""

    status: int
    document: dict[str, Any]


class ApiServer:
    """The API server of the cluster in which this process is a pod; an async context manager."""

    def __init__(self, address: str, directory: Path = SERVICE_ACCOUNT) -> None:
        self._address = address
        self._directory = directory
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Return the one that Kubernetes names to each container.

        Raises:
            UsageError: `kubernetes-not-in-cluster`.
        """
        host = environment.get("KUBERNETES_SERVICE_HOST", "")
        port = environment.get("KUBERNETES_SERVICE_PORT", "443")
        if not host or not port.isdecimal():
            raise UsageError.of(
                "kubernetes-not-in-cluster",
                "KUBERNETES_SERVICE_HOST is not set",
                where="environment",
                expected="to run as a pod, with a service account",
            )
        return cls(f"https://{f'[{host}]' if ':' in host else host}:{port}")

    async def __aenter__(self) -> Self:
        """Open the connections.

        Raises:
            NotPermittedError: `kubernetes-authority` if the authority cannot be read.
        """
        authority = self._directory / "ca.crt"
        try:
            context = await asyncio.to_thread(ssl.create_default_context, cafile=str(authority))
        except (OSError, ssl.SSLError) as error:
            raise NotPermittedError.of(
                "kubernetes-authority",
                f"cannot be read ({type(error).__name__})",
                where=str(authority),
                expected="the API server's authority, which Kubernetes mounts into pods",
                remedy="let the pod have the token of its service account",
            ) from None
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=_MAX_CONNECTIONS),
            timeout=aiohttp.ClientTimeout(total=_SECONDS),
            auto_decompress=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
    ) -> ApiAnswer:
        """Send a request, and return what is answered whatever its status.

        Raises:
            NoAnswerError: `kubernetes-api-unreachable`.
            UnreachableError: `kubernetes-api-answer` if the answer is not JSON.
            NotPermittedError: `kubernetes-token`.
        """
        assert self._session is not None  # noqa: S101 - used as context manager
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Authorization": f"Bearer {self._token()}",
            "Content-Type": content_type,
        }
        data = None if body is None else json.dumps(body).encode()
        try:
            async with self._session.request(
                method, self._address + path, data=data, headers=headers, allow_redirects=False
            ) as response:
                content = await _limited(response.content)
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise NoAnswerError.of(
                "kubernetes-api-unreachable",
                f"no answer ({type(error).__name__})",
                where=_WHERE,
                remedy="look at network policies, and whether the API server runs",
            ) from None
        try:
            document = json.loads(content or b"{}")
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise UnreachableError.of(
                "kubernetes-api-answer",
                f"status {status} without a JSON object",
                where=_WHERE,
                remedy="look what answers at the address of the API server, such as a proxy",
            )
        return ApiAnswer(status, document)

    def _token(self) -> str:
        # Kubernetes replaces it before it expires.
        path = self._directory / "token"
        try:
            token = path.read_text("ascii").strip()
        except (OSError, ValueError) as error:
            raise NotPermittedError.of(
                "kubernetes-token",
                f"cannot be read ({type(error).__name__})",
                where=str(path),
                expected="the token of the pod's service account",
            ) from None
        return token


async def _limited(stream: aiohttp.StreamReader) -> bytes:
    parts, size = [], 0
    async for part in stream.iter_chunked(65536):
        size += len(part)
        if size > _MAX_ANSWER_BYTES:
            raise aiohttp.ClientPayloadError("too large")
        parts.append(part)
    return b"".join(parts)


def refused(answer: ApiAnswer, what: str) -> UnreachableError:
    """Return the error for an answer that is no success; `what` is what was asked for."""
    message = answer.document.get("message")
    return UnreachableError.of(
        "kubernetes-api-refused",
        f"{what}: status {answer.status}: {str(message or 'no message')[:300]}",
        where=_WHERE,
        remedy="compare the rights of the service account with those of the chart",
    )


class AskedCluster:
    """The questions of the webhook, each asked once for all who ask it at the same time."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api
        self._running: dict[tuple[str, ...], asyncio.Task[Any]] = {}

    async def credential_spec(self, name: str) -> dict[str, Any] | None:
        """Return the object of that name, None if there is none.

        Raises:
            UnreachableError: `kubernetes-api-refused`, and those of `ApiServer.request`.
        """
        if not is_spec_name(name):
            return None
        found: dict[str, Any] | None = await self._once(("get", name), self._get, name)
        return found

    async def may_use(self, namespace: str, account: str, name: str) -> Decision:
        """Return whether a service account may use an object in a namespace.

        Raises:
            UnreachableError: `kubernetes-api-refused`, and those of `ApiServer.request`.
        """
        if not is_spec_name(namespace) or not is_spec_name(account):
            return Decision(is_allowed=False)
        key = ("use", namespace, account, name)
        decision: Decision = await self._once(key, self._use, namespace, account, name)
        return decision

    async def _once(self, key: tuple[str, ...], ask: Any, *arguments: str) -> Any:
        task = self._running.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(ask(*arguments))
            self._running[key] = task
            task.add_done_callback(lambda _: self._running.pop(key, None))
        # Whoever began it may be cancelled; the others wait on.
        return await asyncio.shield(task)

    async def _get(self, name: str) -> dict[str, Any] | None:
        answer = await self._api.request("GET", f"{RESOURCE_PATH}/{name}")
        if answer.status == _NOT_FOUND:
            return None
        if answer.status not in _OK:
            raise refused(answer, f"get {PLURAL} {name}")
        return answer.document

    async def _use(self, namespace: str, account: str, name: str) -> Decision:
        user, groups = service_account_user(namespace, account)
        review = {
            "apiVersion": "authorization.k8s.io/v1",
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
                    "name": name,
                },
            },
        }
        path = f"/apis/authorization.k8s.io/v1/namespaces/{namespace}/localsubjectaccessreviews"
        answer = await self._api.request("POST", path, review)
        if answer.status not in _OK:
            raise refused(answer, "create localsubjectaccessreviews")
        status = answer.document.get("status")
        told = status if isinstance(status, dict) else {}
        is_allowed = told.get("allowed") is True and told.get("denied") is not True
        return Decision(is_allowed, str(told.get("reason") or "")[:200])
