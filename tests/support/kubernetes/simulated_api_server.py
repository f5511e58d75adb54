"""An API server that is simulated: reviews and objects over TLS, as credspec asks for them."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from credspec.kubernetes.api.server import ApiServer
from support.servers.certificate_authority import Authority

TOKEN = "token-of-the-driver"


def status(code: int, message: str, **headers: str) -> web.Response:
    """Return a refusal as the API server writes it."""
    return web.json_response({"kind": "Status", "message": message}, status=code, headers=headers)


class SimulatedApiServer:
    """Answers as RBAC and etcd would.

    `objects` are credential specs by name, `bound` are namespace, service account and spec of each
    right to `use`. `before` is awaited with each request, and answers in place of the server if it
    returns an answer. `asked` has method and path of each request, `reviews` what was asked.
    """

    def __init__(self, directory: Path, authority: Authority) -> None:
        self.objects: dict[str, Any] = {}
        self.bound: set[tuple[str, str, str]] = set()
        self.asked: list[tuple[str, str]] = []
        self.reviews: list[dict[str, Any]] = []
        self.before: Callable[[web.Request], Awaitable[web.StreamResponse | None]] | None = None
        self._authority = authority
        self.token_file = directory / "token"
        self.token_file.write_text(TOKEN)
        self.port = 0

    @property
    def server(self) -> ApiServer:
        """The server as clients know it."""
        url = f"https://127.0.0.1:{self.port}"
        return ApiServer(url, self._authority.certificate, self.token_file)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve while the block runs; a second time on the same port."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*self._authority.issue("kubernetes"))
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=context, reuse_address=True)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.method, request.path))
        if self.before is not None:
            early = await self.before(request)
            if early is not None:
                return early
        if request.headers.get("Authorization") != f"Bearer {self.token_file.read_text()}":
            return status(401, "Unauthorized")
        if request.method == "POST":
            return self._review(request.path, await request.json())
        name = request.path.rpartition("/")[2]
        if name not in self.objects:
            return status(404, f'gmsacredentialspecs.windows.k8s.io "{name}" not found')
        return web.json_response(
            {
                "apiVersion": "windows.k8s.io/v1",
                "kind": "GMSACredentialSpec",
                "metadata": {"name": name, "uid": "u", "resourceVersion": "1"},
                "credspec": self.objects[name],
            }
        )

    def _review(self, path: str, review: dict[str, Any]) -> web.Response:
        spec = review["spec"]
        # The API server takes no review that is of another namespace than its path.
        assert path.split("/")[-2:] == [
            review["metadata"]["namespace"],
            "localsubjectaccessreviews",
        ]
        self.reviews.append(spec)
        wanted = spec["resourceAttributes"]
        _, _, namespace, account = spec["user"].split(":")
        key = (namespace, account, wanted["name"])
        is_allowed = wanted["verb"] == "use" and wanted["namespace"] == namespace
        is_allowed = is_allowed and key in self.bound
        answer = {"allowed": is_allowed, "reason": "RBAC: allowed by RoleBinding" * is_allowed}
        return web.json_response(review | {"status": answer}, status=201)


def credspec(*accounts: str, domain: str = "example.test", **changes: Any) -> dict[str, Any]:
    """Return the ``credspec`` of an object, as `support.agent.scripted_leases.raw_spec`."""
    document: dict[str, Any] = {
        "CmsPlugins": ["ActiveDirectory"],
        "DomainJoinConfig": {
            "DnsName": domain,
            "NetBiosName": "EXAMPLE",
            "MachineAccountName": accounts[0],
        },
        "ActiveDirectoryConfig": {
            "GroupManagedServiceAccounts": [{"Name": name, "Scope": domain} for name in accounts]
        },
    }
    document["DomainJoinConfig"] |= changes
    return document


@contextmanager
def serving_in_a_thread(server: SimulatedApiServer) -> Iterator[None]:
    """Serve while the block runs, for tests without an event loop."""
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with server.serving():
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(60)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
