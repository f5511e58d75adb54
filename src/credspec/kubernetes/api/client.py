"""Questions to the API server: each with a deadline, asked again where that may help.

No library of Kubernetes is needed for the few that there are, and none of their 40 to 190 MB.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import aiohttp

from credspec import __version__
from credspec.errors import CredspecError, NotFoundError, UnreachableError
from credspec.kubernetes.api.server import ApiServer

MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
"""The longest answer that is read; etcd stores no object above 1.5 MiB."""

_SECONDS: Final = 10.0
_ATTEMPT_SECONDS: Final = 4.0
_ATTEMPTS: Final = 4
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 2.0
_CONNECTIONS: Final = 16
_OK: Final = frozenset({200, 201})
_NOT_NOW: Final = frozenset({408, 429, 500, 502, 503, 504})
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND = 401, 403, 404
_MOST_DIGITS: Final = 6
_SHOWN: Final = 300


class ApiRefusedError(CredspecError):
    """The API server lets this service account not ask that, or takes the question for invalid."""


class _Answer(NamedTuple):
    status: int
    body: bytes


class _NoAnswerYetError(Exception):
    """An attempt that failed; another may not."""

    def __init__(self, found: str, retry_after: float | None = None) -> None:
        super().__init__(found)
        self.found = found
        self.retry_after = retry_after


class ApiClient:
    """Asks one API server; to be used in one event loop, and closed in it.

    A question is asked at most four times within `seconds`, with growing pauses that differ by
    chance, so that a restarted server is not met by all nodes at the same moment.
    """

    def __init__(
        self,
        server: ApiServer,
        *,
        seconds: float = _SECONDS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._server = server
        self._seconds = seconds
        self._sleep = sleep
        self._chance = chance
        self._session: aiohttp.ClientSession | None = None
        self.questions = 0
        """How many requests were sent, repeated ones included."""

    async def get(self, path: str) -> bytes:
        """Return an object's JSON as it was sent.

        Raises:
            NotFoundError: `kubernetes-not-found`.
            ApiRefusedError: `kubernetes-api-refused`.
            UnreachableError: `kubernetes-api-unreachable`.
            CredspecError: `kubernetes-answer`, and as `ApiServer.token` and `tls_context`.
        """
        return await self._ask("GET", path, None)

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send an object that asks something, which may be sent twice; return the answer's object.

        Raises as `get`.
        """
        content = await self._ask("POST", path, json.dumps(body).encode())
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise _bad_answer(path, "not an object in JSON")
        return answer

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _ask(self, method: str, path: str, body: bytes | None) -> bytes:
        try:
            async with asyncio.timeout(self._seconds):
                answer = await self._answer(method, path, body)
        except TimeoutError:
            raise self._unreachable(f"no answer within {self._seconds:g} s") from None
        if answer.status in _OK:
            return answer.body
        found = f"{answer.status}: {_message(answer.body)}"
        if answer.status == _NOT_FOUND:
            raise NotFoundError.of("kubernetes-not-found", found, where=path)
        raise ApiRefusedError.of(
            "kubernetes-api-refused",
            found,
            where=f"{method} {path}",
            remedy="give the service account of this pod the rights that the chart's ClusterRole "
            "has"
            if answer.status in {_UNAUTHORIZED, _FORBIDDEN}
            else "",
        )

    async def _answer(self, method: str, path: str, body: bytes | None) -> _Answer:
        pause = _FIRST_PAUSE
        for left in reversed(range(_ATTEMPTS)):
            try:
                return await self._attempt(method, path, body)
            except _NoAnswerYetError as failure:
                if not left:
                    raise self._unreachable(failure.found) from None
                wait = pause if failure.retry_after is None else failure.retry_after
            await self._sleep(min(wait, _LONGEST_PAUSE) * (0.5 + self._chance()))
            pause *= 3
        raise AssertionError("unreachable")  # the last attempt has raised

    async def _attempt(self, method: str, path: str, body: bytes | None) -> _Answer:
        self.questions += 1
        headers = {
            "Accept": "application/json",
            "Authorization": f"Bearer {self._server.token()}",
            "Content-Type": "application/json",
            "User-Agent": f"credspec/{__version__}",
        }
        try:
            async with self._connected().request(
                method, self._server.url + path, data=body, headers=headers, allow_redirects=False
            ) as response:
                content = await _limited(response)
        except (aiohttp.ClientSSLError, ssl.SSLError) as error:
            # The authority may have been replaced: its file is read again then.
            await self.close()
            raise _NoAnswerYetError(f"TLS: {_reason(error)}") from None
        except TimeoutError:
            raise _NoAnswerYetError(f"no answer within {_ATTEMPT_SECONDS:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise _NoAnswerYetError(_reason(error)) from None
        if content is None:
            raise _bad_answer(path, f"more than {MAX_ANSWER_BYTES} bytes")
        if response.status in _NOT_NOW:
            after = response.headers.get("Retry-After", "")
            seconds = float(after) if after.isdecimal() and len(after) < _MOST_DIGITS else None
            raise _NoAnswerYetError(f"{response.status}: {_message(content)}", seconds)
        return _Answer(response.status, content)

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    ssl=self._server.tls_context(), limit=_CONNECTIONS, force_close=False
                ),
                timeout=aiohttp.ClientTimeout(total=_ATTEMPT_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _unreachable(self, found: str) -> UnreachableError:
        return UnreachableError.of(
            "kubernetes-api-unreachable",
            found,
            where=self._server.url,
            remedy="see whether the API server runs, and whether this node reaches it",
        )


async def _limited(response: aiohttp.ClientResponse) -> bytes | None:
    """Return the body, None if it is longer than one may be."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            return None
    return bytes(body)


def _message(body: bytes) -> str:
    """Return what a Status object says, or nothing: it may be any server's page of any length."""
    try:
        found = json.loads(body[: 64 * 1024])
    except (ValueError, RecursionError):
        found = None
    text = found.get("message") if isinstance(found, dict) else None
    return text[:_SHOWN] if isinstance(text, str) and text else "no reason given"


def _reason(error: BaseException) -> str:
    """Return what failed, without the address that is said anyway."""
    cause = getattr(error, "os_error", None) or error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    return getattr(cause, "strerror", None) or type(cause).__name__


def _bad_answer(path: str, found: str) -> CredspecError:
    return CredspecError.of("kubernetes-answer", found, where=path, expected="an object in JSON")
