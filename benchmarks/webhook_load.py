"""Sends reviews of a pod to a webhook, as the API server does, and says how long they took.

Run as a program in the cluster's network: address, server name, the file of its authorities, and
that of the pod. An admission is a review each to ``/mutate`` and ``/validate``. It measures some
one after the other, prints a line, and lets several at a time go on for a while; then it prints a
JSON object: the milliseconds of the former, and how many the latter were in how many seconds.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp

from support.webhook.json_patch import applied
from support.webhook.reviews import patch_in, review

ONE_BY_ONE, AT_A_TIME, SECONDS = 300, 8, 10.0
_TYPE = {"Content-Type": "application/json"}


async def main(address: str, name: str, authorities: str, pod: str) -> None:
    """Measure and print."""
    original = json.loads(Path(pod).read_text())
    context = ssl.create_default_context(cafile=authorities)
    connector = aiohttp.TCPConnector(ssl=context, limit=AT_A_TIME)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def ask(path: str, body: bytes) -> Any:
            url = f"https://{address}{path}"
            async with session.post(url, data=body, headers=_TYPE, server_hostname=name) as answer:
                found = await answer.json()
                if not found["response"]["allowed"]:
                    sys.exit(str(found))
                return found

        first = review(original)
        patched = applied(original, patch_in(await ask("/mutate", first)))
        second = review(patched)

        async def admit() -> None:
            await ask("/mutate", first)
            await ask("/validate", second)

        taken = []
        for _ in range(ONE_BY_ONE):
            started = time.perf_counter()
            await admit()
            taken.append((time.perf_counter() - started) * 1000)
        began, count = time.perf_counter(), 0

        async def keep_asking() -> None:
            nonlocal count
            while time.perf_counter() - began < SECONDS:
                await admit()
                count += 1

        print("load", flush=True)
        await asyncio.gather(*(keep_asking() for _ in range(AT_A_TIME)))
        seconds = time.perf_counter() - began
    print(json.dumps({"milliseconds": taken, "admissions": count, "seconds": seconds}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
