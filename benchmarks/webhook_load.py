"""Sends reviews of a pod to a webhook, as the API server does, and says how long they took.

Run as a program in the cluster's network: address, server name, the file of its authorities, that
of the pod, and the API server's URL with the files of authority, certificate and key. An admission
is a review each to ``/mutate`` and ``/validate``. Some of one service account and some of new ones,
about which the webhook must ask, are measured in turns with what it then asks the API server, asked
here. Then it prints a line, and lets several admissions
at a time go on for a while; at last it prints a JSON object: the milliseconds of both, and how many
admissions were in how many seconds.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http.client import BAD_REQUEST
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp

from credspec.kubernetes.objects.names import (
    GROUP,
    PLURAL,
    RESOURCE_PATH,
    VERSION,
    service_account_user,
)
from support.webhook.json_patch import applied
from support.webhook.reviews import patch_in, review

ONE_BY_ONE, AT_A_TIME, SECONDS = 300, 8, 10.0
_TYPE = {"Content-Type": "application/json"}


async def main(address: str, name: str, authorities: str, pod: str, *api_server: str) -> None:
    """Measure and print."""
    original = json.loads(Path(pod).read_text())
    context = ssl.create_default_context(cafile=authorities)
    connector = aiohttp.TCPConnector(ssl=context, limit=AT_A_TIME)
    async with aiohttp.ClientSession(connector=connector) as session, questions(*api_server) as api:

        async def ask(path: str, body: bytes) -> Any:
            url = f"https://{address}{path}"
            async with session.post(url, data=body, headers=_TYPE, server_hostname=name) as answer:
                found = await answer.json()
                if not found["response"]["allowed"]:
                    sys.exit(str(found))
                return found

        patched = applied(original, patch_in(await ask("/mutate", review(original))))
        numbers = count()

        def reviews(account: str) -> tuple[bytes, bytes]:
            return review(of(original, account)), review(of(patched, account))

        async def admit(reviewed: tuple[bytes, bytes]) -> None:
            await ask("/mutate", reviewed[0])
            await ask("/validate", reviewed[1])

        same = reviews("default")
        await admit(same)
        taken: dict[str, list[float]] = {"replica": [], "new": [], "api server": []}
        for _ in range(ONE_BY_ONE):
            new = reviews(f"new-{next(numbers)}")
            await admit(same)  # so that it is remembered
            for each, subject in (
                ("replica", lambda: admit(same)),
                ("new", lambda new=new: admit(new)),
                ("api server", api),
            ):
                started = time.perf_counter()
                await subject()
                taken[each].append((time.perf_counter() - started) * 1000)
        began, made = time.perf_counter(), 0

        async def keep_asking() -> None:
            nonlocal made
            while time.perf_counter() - began < SECONDS:
                await admit(reviews(f"new-{next(numbers)}"))
                made += 1

        print("load", flush=True)
        await asyncio.gather(*(keep_asking() for _ in range(AT_A_TIME)))
        seconds = time.perf_counter() - began
    print(json.dumps({"milliseconds": taken, "admissions": made, "seconds": seconds}))


def of(pod: dict[str, Any], account: str) -> dict[str, Any]:
    """Return the pod with another service account."""
    return {**pod, "spec": {**pod["spec"], "serviceAccountName": account}}


@asynccontextmanager
async def questions(
    url: str, authority: str, certificate: str, key: str
) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Give what asks the API server for the object and the right to use it, both at once."""
    context = ssl.create_default_context(cafile=authority)
    context.load_cert_chain(certificate, key)
    api = "authorization.k8s.io/v1"
    asked = {"verb": "use", "group": GROUP, "version": VERSION, "resource": PLURAL}
    asked |= {"namespace": "shop", "name": "webapp01"}
    user, groups = service_account_user("shop", "default")
    question = {
        "apiVersion": api,
        "kind": "LocalSubjectAccessReview",
        "metadata": {"namespace": "shop"},
        "spec": {"user": user, "groups": groups, "resourceAttributes": asked},
    }
    path = f"{url}/apis/{api}/namespaces/shop/localsubjectaccessreviews"
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def read(request: Any) -> None:
            async with request as answer:
                found = await answer.json()
                if answer.status >= BAD_REQUEST:
                    sys.exit(str(found))

        yield lambda: asyncio.gather(
            read(session.get(f"{url}{RESOURCE_PATH}/webapp01")),
            read(session.post(path, json=question)),
        )


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
