"""The variables that an image sets, as dockerd has them: those stay in a container with a lease."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Final
from urllib.parse import quote

from credspec.runtimes.docker_gateway.connection import Connection
from credspec.runtimes.docker_gateway.http_head import END, MAX_HEAD_BYTES

_ANSWER_SECONDS: Final = 10.0
_LARGEST_ANSWER: Final = 1024 * 1024
_LONGEST_NAME: Final = 1024


async def image_environment(upstream: Path, image: str) -> list[str]:
    """Return an image's environment, as ``NAME=VALUE``.

    It is empty if dockerd has no such image, which it says better itself when the container is
    created, and if it does not answer in time or as the Docker API has it.
    """
    if not image or len(image) > _LONGEST_NAME:
        return []
    name = quote(image, safe="/:@", errors="surrogateescape")
    # HTTP/1.0: the end of the connection is the end of the answer.
    request = f"GET /images/{name}/json HTTP/1.0\r\nHost: docker\r\n\r\n"
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            with await Connection.dial(upstream) as daemon:
                await daemon.send(request.encode())
                head = await daemon.read_until(END, MAX_HEAD_BYTES)
                if head[9:12] != b"200":
                    return []
                return _environment(bytes(await daemon.read_to_end(_LARGEST_ANSWER)))
    except (OSError, EOFError, asyncio.LimitOverrunError):
        return []


def _environment(answer: bytes) -> list[str]:
    try:
        document = json.loads(answer)
        found = (document.get("Config") or {}).get("Env") or []
    except (ValueError, RecursionError, AttributeError):
        return []
    return [entry for entry in found if isinstance(entry, str)] if isinstance(found, list) else []
