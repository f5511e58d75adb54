"""Questions about containers, answered as if the gateway had added nothing; and commits of them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar
from urllib.parse import quote

from credspec.gateway.body_memory import BodyMemory, NoMemoryLeftError, Share
from credspec.gateway.commit_request import CommitTarget, commit_body
from credspec.gateway.connection import Connection
from credspec.gateway.daemon_answer import DaemonAnswer, read_answer
from credspec.gateway.daemon_client import DaemonClient
from credspec.gateway.http_head import RequestHead, closing
from credspec.gateway.inspect_answer import (
    InspectTarget,
    as_requested,
    image_environment_of,
    image_of,
    may_need_change,
)
from credspec.gateway.refusal import Refusal, no_memory
from credspec.gateway.user_threads import UserThreads
from credspec.sockets.peers import Peer
from credspec.sockets.tunnel import HANG_UP_SECONDS, end_politely, hung_up, tunnel

_T = TypeVar("_T")

_THREADS: Final = 2
_TOO_LATE: Final = (
    "credspec: the answer about a container could not be read within {}; try again "
    "[docker-answer-timeout]"
)
# With `size=1` dockerd adds up the files of containers before it answers.
_DAEMON_SECONDS: Final = 3600.0
_CLIENT_SECONDS: Final = 60.0
_LONGEST_IMAGE_NAME: Final = 1024


class ContainerAnswers:
    """Asks `daemon` and changes what it answers; `runtime` is the name of the shim there."""

    def __init__(self, daemon: DaemonClient, bodies: BodyMemory, runtime: str) -> None:
        self._daemon = daemon
        self._bodies = bodies
        self._runtime = runtime
        self._threads = UserThreads(_THREADS, "container-answer", _TOO_LATE)

    async def forward(
        self, head: RequestHead, target: InspectTarget, client: Connection, peer: Peer
    ) -> None:
        """Forward a question and its answer.

        Raises:
            Refusal: there is no answer, or no memory for it.
        """
        # What is compressed would have to be decompressed to be read.
        head = head.with_fields(Connection=closing(head), Accept_Encoding=None)
        client.take_rest()  # another request; it comes again on a new connection
        with self._bodies.share(peer) as share, await self._daemon.dial() as daemon:
            await daemon.send(head.pack())
            answer = await _read(client, daemon, share)
            if answer is None:
                return  # the client has gone
            if answer.body is None:
                rest = daemon.take_rest()
                await _send(client, answer.received + rest)
                share.give_back()
                await tunnel(client.socket, daemon.socket)
                return
            changed = await self._changed(answer.body, target, peer, share)
            await _send(client, answer.received if changed is None else answer.with_body(changed))
        await end_politely(client.socket)

    async def commit_body(
        self, body: bytearray, target: CommitTarget, peer: Peer, share: Share
    ) -> bytearray:
        """Return the body of a commit without what the gateway added to the container.

        Raises:
            Refusal: dockerd cannot be asked about the container.
        """
        path = f"{target.prefix}/containers/{quote(target.container)}/json"
        try:
            container = await self._daemon.json(path, share)
        except NoMemoryLeftError:
            raise no_memory() from None
        if container is None or not may_need_change(container):
            return body
        environment = await self._image_environment(container, target.prefix, peer, share)
        changed = await self._threads.run(
            peer, lambda: commit_body(body, container, self._runtime, environment)
        )
        return body if changed is None else bytearray(changed)

    async def image_environment(self, image: str, share: Share) -> list[str]:
        """Return an image's environment, as ``NAME=VALUE``, by a name of the image.

        It is empty if dockerd has no such image, which it says better itself when the container is
        created, and if it does not answer in time or as the Docker API has it.

        Raises:
            Refusal: dockerd cannot be asked, or there is no memory for its answer.
        """
        if not image or len(image) > _LONGEST_IMAGE_NAME:
            return []
        name = quote(image, safe="/:@", errors="surrogateescape")
        return await self._environment_at(f"/images/{name}/json", share)

    async def config(self, config_id: str, share: Share) -> bytearray | None:
        """Return dockerd's answer about a Swarm config, None if there is no such.

        Raises:
            Refusal: dockerd cannot be asked, or there is no memory for its answer.
        """
        try:
            return await self._daemon.json(f"/configs/{config_id}", share)
        except NoMemoryLeftError:
            raise no_memory() from None

    async def _changed(
        self, body: bytearray, target: InspectTarget, peer: Peer, share: Share
    ) -> bytes | None:
        if not may_need_change(body):
            return None
        environment: list[str] = []
        if target.kind == "container":
            environment = await self._image_environment(body, target.prefix, peer, share)
        return await self._threads.run(
            peer, lambda: as_requested(body, target.kind, self._runtime, environment)
        )

    async def _image_environment(
        self, container: bytearray, prefix: str, peer: Peer, share: Share
    ) -> list[str]:
        """Return the environment of a container's image; empty if the image is not there."""
        image = await self._threads.run(peer, lambda: image_of(container, self._runtime))
        if image is None:
            return []
        return await self._environment_at(f"{prefix}/images/{quote(image, safe='')}/json", share)

    async def _environment_at(self, path: str, share: Share) -> list[str]:
        try:
            found = await self._daemon.json(path, share)
        except NoMemoryLeftError:
            raise no_memory() from None
        return [] if found is None else image_environment_of(found)


async def _read(client: Connection, daemon: Connection, share: Share) -> DaemonAnswer | None:
    """Return the daemon's answer, None if the client has gone meanwhile."""
    try:
        async with asyncio.timeout(_DAEMON_SECONDS):
            return await _unless_gone(client, read_answer(daemon, share))
    except NoMemoryLeftError:
        raise no_memory() from None
    except TimeoutError:
        raise Refusal(504, "Gateway Timeout", _TOO_LATE.format("an hour")) from None
    except (ValueError, asyncio.LimitOverrunError):
        raise Refusal(
            502, "Bad Gateway", "credspec: dockerd's answer is malformed [docker-answer]"
        ) from None


async def _unless_gone(client: Connection, work: Coroutine[Any, Any, _T]) -> _T | None:
    task = asyncio.create_task(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=HANG_UP_SECONDS)
            if not task.done() and hung_up(client.socket):
                return None
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _send(client: Connection, data: bytearray) -> None:
    """Send an answer; a client that does not take it loses it."""
    async with asyncio.timeout(_CLIENT_SECONDS):
        await client.send(data)
