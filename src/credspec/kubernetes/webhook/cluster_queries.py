"""What the webhook asks the API server, as the webhook's own service account."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from credspec.errors import NotFoundError
from credspec.kubernetes.api.client import ApiClient
from credspec.kubernetes.api.reviews import Decision, review_use
from credspec.kubernetes.api.server import ApiServer
from credspec.kubernetes.objects.names import RESOURCE_PATH, is_spec_name
from credspec.kubernetes.webhook.recent_grants import RecentGrants

QUERY_SECONDS: Final = 4.0
"""How long a question may take in all, with what is asked again."""

_ATTEMPTS: Final = 3
_CONNECTIONS: Final = 64


def webhook_client(server: ApiServer) -> ApiClient:
    """Return a client that gives up before the API server gives up its review."""
    return ApiClient(server, seconds=QUERY_SECONDS, attempts=_ATTEMPTS, connections=_CONNECTIONS)


class ClusterQueries:
    """The questions of the webhook, each asked once for all who ask it at the same time.

    `clock` returns seconds that only grow, as `time.monotonic`.
    """

    def __init__(self, api: ApiClient, clock: Callable[[], float] = time.monotonic) -> None:
        self.grants = RecentGrants(clock)
        self._api = api
        self._running: dict[tuple[str, ...], asyncio.Task[Any]] = {}

    async def credential_spec(self, name: str) -> dict[str, Any] | None:
        """Return the object of that name, None if there is none.

        Raises:
            CredspecError: as `ApiClient.get`.
        """
        if not is_spec_name(name):
            return None
        found: dict[str, Any] | None = await self._once(("get", name), self._get, name)
        return found

    async def may_use(self, namespace: str, account: str, name: str) -> Decision:
        """Return whether a service account may use an object in a namespace.

        Raises:
            CredspecError: as `review_use`.
        """
        key = ("use", namespace, account, name)
        decision: Decision = await self._once(key, self._use, namespace, account, name)
        return decision

    async def _once(self, key: tuple[str, ...], ask: Any, *arguments: str) -> Any:
        task = self._running.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(ask(*arguments))
            self._running[key] = task
            task.add_done_callback(lambda _: self._running.pop(key, None))
        # The caller that began it may be cancelled; the others wait on.
        return await asyncio.shield(task)

    async def _get(self, name: str) -> dict[str, Any] | None:
        try:
            return await self._api.get_object(f"{RESOURCE_PATH}/{name}")
        except NotFoundError:
            return None

    async def _use(self, namespace: str, account: str, name: str) -> Decision:
        return await review_use(self._api, namespace, account, name)
