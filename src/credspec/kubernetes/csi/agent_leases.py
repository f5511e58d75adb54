"""The leases of volumes, as the driver asks the agent for them on its socket."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from credspec.config.policy import KUBERNETES_SOURCE
from credspec.contract.errors import ShimError
from credspec.contract.lease import check_answer
from credspec.contract.service_names import BROKER, TGT, listed_services
from credspec.errors import AgentUnreachableError, CredspecError
from credspec.http.client import HttpClient, TooLongError
from credspec.kubernetes.csi.volume_request import FileOptions, Pod

_SECONDS: Final = 65.0  # longer than the agent's own deadline, so that its reason arrives
_RELEASE_SECONDS: Final = 10.0
_LONGEST_PAUSE: Final = 2.0
_CONNECTIONS: Final = 100
_MOST_BYTES: Final = 4 * 1024 * 1024
_BAD_REQUEST, _NOT_FOUND = 400, 404


class AgentLeases:
    """Asks the agent; for what passes by itself it is asked again for `wait_seconds`.

    The kubelet's own pauses grow to two minutes, which is long for an agent that is being
    restarted.
    """

    def __init__(
        self,
        agent_socket: Path,
        *,
        wait_seconds: float = 15.0,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._socket = agent_socket
        # Each question has a connection of its own: the agent may be another one by then.
        self._http = HttpClient(agent_socket, connections=_CONNECTIONS, kept=0)
        self._wait_seconds = wait_seconds
        self._monotonic = monotonic
        self._sleep = sleep

    async def make(
        self, lease_id: str, document: str, pod: Pod, directory: Path, options: FileOptions
    ) -> None:
        """Have a volume filled; a lease that it has is replaced.

        Raises:
            CredspecError: what the agent answered, or `agent-unreachable`.
        """
        body = {
            "spec": f"raw://{document}",
            "spec_source": KUBERNETES_SOURCE,
            "container": str(pod),
            "runtime_state": str(directory),
            "uid": options.uid,
            "gid": options.gid,
            "mode": options.mode,
            "keytab": options.keytab,
            "replay_cache": options.keytab,
        }
        if options.tickets != TGT:
            listed = listed_services(
                options.services, "services", is_pattern=options.tickets == BROKER
            )
            body |= {"tickets": options.tickets, "services": list(listed)}
        end = self._monotonic() + self._wait_seconds
        pause = 0.2
        while True:
            try:
                content = await self._ask("PUT", lease_id, body, _SECONDS)
                await self._check_kind(lease_id, content, options.tickets)
            except CredspecError as error:
                may_pass = isinstance(error, AgentUnreachableError) or error.retry_after is not None
                if not may_pass or self._monotonic() + pause >= end:
                    raise
            else:
                return
            await self._sleep(pause * (0.5 + random.random()))  # noqa: S311 - not for secrets
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _check_kind(self, lease_id: str, content: bytes, tickets: str) -> None:
        """Refuse what an agent gave that does not know which tickets were asked for."""
        if tickets == TGT:
            return
        try:
            check_answer(json.loads(content), tickets)
        except ShimError as error:
            await self.release(lease_id)
            raise CredspecError.of(error.code, error.text) from None

    async def has(self, lease_id: str) -> bool:
        """Return whether the agent has a lease.

        Raises:
            CredspecError: `agent-unreachable`, or what the agent answered.
        """
        try:
            await self._ask("GET", lease_id, None, _RELEASE_SECONDS)
        except CredspecError as error:
            if error.response_status == _NOT_FOUND:
                return False
            raise
        return True

    async def release(self, lease_id: str) -> None:
        """Have the tickets wiped, as far as an agent is there: else it finds out on its own.

        Raises:
            CredspecError: what the agent answered, or `agent-unreachable`.
        """
        await self._ask("DELETE", lease_id, None, _RELEASE_SECONDS)

    async def _ask(self, method: str, lease_id: str, body: Any, seconds: float) -> bytes:
        content = None if body is None else json.dumps(body).encode()
        try:
            async with asyncio.timeout(seconds):
                answer = await self._http.request(
                    method,
                    f"/v1/leases/{lease_id}",
                    headers={"Content-Type": "application/json"},
                    body=content,
                    most_bytes=_MOST_BYTES,
                )
        except TimeoutError:
            raise self._unreachable(f"no answer within {seconds:.0f} s") from None
        except (OSError, TooLongError) as error:
            found = getattr(error, "strerror", None) or type(error).__name__
            raise self._unreachable(f"the agent does not answer ({found})") from None
        if answer.status >= _BAD_REQUEST:
            raise _refusal(answer.body, answer.status, answer.headers.get("retry-after", ""))
        return answer.body

    def _unreachable(self, found: str) -> AgentUnreachableError:
        return AgentUnreachableError.of(
            "agent-unreachable",
            found,
            where=str(self._socket),
            remedy="see whether the agent runs on this node",
        )


def _refusal(content: bytes, status: int, after: str) -> CredspecError:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    failure = CredspecError.from_json(document if isinstance(document, dict) else {})
    failure.retry_after = int(after) if after.isdecimal() else None
    failure.response_status = status
    return failure
