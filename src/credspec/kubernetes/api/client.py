"""Questions to the API server: each with a deadline, asked again where that may help.

No library of Kubernetes is needed for the few that there are, and none of their 40 to 190 MB.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final

from credspec import __version__
from credspec.errors import CredspecError, NotFoundError, UnreachableError
from credspec.http.client import HttpAnswer, HttpClient, TooLongError
from credspec.kubernetes.api.server import ApiServer
from credspec.printable import printable

MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
"""The longest answer that is read; etcd stores no object above 1.5 MiB."""

JSON_PATCH: Final = "application/json-patch+json"
"""The content type of the changes that `ApiClient.patch` sends (RFC 6902)."""

_JSON: Final = "application/json"
_SECONDS: Final = 10.0
_LONGEST_ATTEMPT: Final = 4.0
_ATTEMPTS: Final = 4
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 2.0
_CONNECTIONS: Final = 16
_OK: Final = frozenset({200, 201})
_NOT_NOW: Final = frozenset({408, 429, 500, 502, 503, 504})
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _CONFLICT = 401, 403, 404, 409
_MOST_DIGITS: Final = 6
_SHOWN: Final = 300


class ApiRefusedError(CredspecError):
    """The API server lets this service account not ask that, or takes the question for invalid."""


class ApiConflictError(ApiRefusedError):
    """The object exists already, or is another one than was read: somebody changed it meanwhile."""


class _NoAnswerYetError(Exception):
    """An attempt that failed; another may not."""

    def __init__(self, found: str, retry_after: float | None = None) -> None:
        super().__init__(found)
        self.found = found
        self.retry_after = retry_after


class ApiClient:
    """Asks one API server; to be used in one event loop, and closed in it.

    A question is asked at most `attempts` times within `seconds` in all, with growing pauses that
    differ by chance, so that a restarted server is not met by all nodes at the same moment. No
    attempt takes more than half of it: one on a connection that is dead leaves time for another.
    `connections` are the most that are open at a time.
    """

    def __init__(
        self,
        server: ApiServer,
        *,
        seconds: float = _SECONDS,
        attempts: int = _ATTEMPTS,
        connections: int = _CONNECTIONS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._server = server
        self._seconds = seconds
        self._attempt_seconds = min(_LONGEST_ATTEMPT, seconds / 2)
        self._attempts = attempts
        self._http = HttpClient(
            server.url, server.tls_context, connections=connections, kept=connections
        )
        self._sleep = sleep
        self._chance = chance
        self.questions = 0
        """How many requests were sent, repeated ones included."""

    async def get(self, path: str) -> bytes:
        """Return an object's JSON as it was sent.

        Raises:
            NotFoundError: `kubernetes-not-found`.
            ApiRefusedError: `kubernetes-api-refused`.
            UnreachableError: `kubernetes-api-unreachable`.
            CredspecError: `kubernetes-api-answer`, and as `ApiServer.token` and `tls_context`.
        """
        return await self._ask("GET", path, None)

    async def get_object(self, path: str) -> dict[str, Any]:
        """Return an object; raises as `get`."""
        return _object_in(await self._ask("GET", path, None), path)

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send an object that asks something, which may be sent twice; return the answer's object.

        Raises as `get`.
        """
        return _object_in(await self._ask("POST", path, body), path)

    async def put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Replace an object by one that names the `resourceVersion` it was made from.

        If an answer is lost, the second attempt is a conflict with the first.

        Raises:
            ApiConflictError: `kubernetes-api-conflict`; and as `get`.
        """
        return _object_in(await self._ask("PUT", path, body), path)

    async def patch(self, path: str, changes: list[dict[str, Any]]) -> dict[str, Any]:
        """Change an object by the operations of RFC 6902, which may be sent twice.

        Raises as `put`.
        """
        return _object_in(await self._ask("PATCH", path, changes, JSON_PATCH), path)

    async def close(self) -> None:
        """Close the connections."""
        self._http.close()

    async def _ask(self, method: str, path: str, body: object, content_type: str = _JSON) -> bytes:
        content = None if body is None else json.dumps(body).encode()
        try:
            async with asyncio.timeout(self._seconds):
                answer = await self._answer(method, path, content, content_type)
        except TimeoutError:
            raise self._unreachable(f"no answer within {self._seconds:g} s") from None
        if answer.status in _OK:
            return answer.body
        found = f"{answer.status}: {_message(answer.body)}"
        if answer.status == _NOT_FOUND:
            raise NotFoundError.of("kubernetes-not-found", found, where=path)
        if answer.status == _CONFLICT:
            raise ApiConflictError.of(
                "kubernetes-api-conflict",
                found,
                where=f"{method} {path}",
                remedy="read the object again before it is changed",
            )
        raise ApiRefusedError.of(
            "kubernetes-api-refused",
            found,
            where=f"{method} {path}",
            remedy="give the service account of this pod the rights that the chart's ClusterRole "
            "has"
            if answer.status in {_UNAUTHORIZED, _FORBIDDEN}
            else "",
        )

    async def _answer(
        self, method: str, path: str, body: bytes | None, content_type: str
    ) -> HttpAnswer:
        pause = _FIRST_PAUSE
        for left in reversed(range(self._attempts)):
            try:
                return await self._attempt(method, path, body, content_type)
            except _NoAnswerYetError as failure:
                if not left:
                    raise self._unreachable(failure.found) from None
                wait = pause if failure.retry_after is None else failure.retry_after
            await self._sleep(min(wait, _LONGEST_PAUSE) * (0.5 + self._chance()))
            pause *= 3
        raise AssertionError("unreachable")  # the last attempt has raised

    async def _attempt(
        self, method: str, path: str, body: bytes | None, content_type: str
    ) -> HttpAnswer:
        self.questions += 1
        headers = {
            "Accept": _JSON,
            # A short answer could become a long one.
            "Accept-Encoding": "identity",
            "Authorization": f"Bearer {self._server.token()}",
            "Content-Type": content_type,
            "User-Agent": f"credspec/{__version__}",
        }
        try:
            async with asyncio.timeout(self._attempt_seconds):
                answer = await self._http.request(
                    method, path, headers=headers, body=body, most_bytes=MAX_ANSWER_BYTES
                )
        except TooLongError:
            raise _bad_answer(path, f"more than {MAX_ANSWER_BYTES} bytes") from None
        except ssl.SSLError as error:
            # The authority may have been replaced: other connections are to see that as well.
            self._http.close()
            raise _NoAnswerYetError(f"TLS: {_reason(error)}") from None
        except TimeoutError:
            raise _NoAnswerYetError(f"no answer within {self._attempt_seconds:g} s") from None
        except OSError as error:
            raise _NoAnswerYetError(_reason(error)) from None
        if answer.status in _NOT_NOW:
            after = answer.headers.get("retry-after", "")
            seconds = float(after) if after.isdecimal() and len(after) < _MOST_DIGITS else None
            raise _NoAnswerYetError(f"{answer.status}: {_message(answer.body)}", seconds)
        return answer

    def _unreachable(self, found: str) -> UnreachableError:
        return UnreachableError.of(
            "kubernetes-api-unreachable",
            found,
            where=self._server.url,
            remedy="see whether the API server runs, and whether this node reaches it",
        )


def _message(body: bytes) -> str:
    """Return what a Status object says, or nothing: it may be any server's page of any length."""
    try:
        found = json.loads(body[: 64 * 1024])
    except (ValueError, RecursionError):
        found = None
    text = found.get("message") if isinstance(found, dict) else None
    return printable(text[:_SHOWN]) if isinstance(text, str) and text else "no reason given"


def _reason(error: OSError) -> str:
    """Return what failed, without the address that is said anyway."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return error.strerror or type(error).__name__


def _object_in(content: bytes, path: str) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _bad_answer(path, "not an object in JSON")
    return found


def _bad_answer(path: str, found: str) -> CredspecError:
    return CredspecError.of(
        "kubernetes-api-answer", found, where=path, expected="an object in JSON"
    )
