"""How client libraries of services ask: by `HttpsClient`, whatever they would do themselves."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from credspec.errors import CredspecError
from credspec.providers.https import Answer, HttpsClient

if TYPE_CHECKING:
    import requests

_HTTPS_PORT: Final = 443


def requests_session(client: HttpsClient) -> requests.Session:
    """Return a session of requests that asks the client's server and no other.

    It takes neither proxies nor netrc nor authorities of the environment. What it is given of
    certificates and timeouts is ignored: the client has its own. `HttpsClient.ask` tells what it
    raises.
    """
    import requests
    from requests.adapters import HTTPAdapter

    class Adapter(HTTPAdapter):
        def send(self, request: Any, *args: Any, **options: Any) -> Any:
            del args, options
            body = request.body
            data = body.encode() if isinstance(body, str) else body
            answer = _asked(client, request.method, request.url, dict(request.headers), data)
            return self.build_response(request, _as_urllib3(answer))

    session = requests.Session()
    session.trust_env = False
    session.adapters.clear()
    session.mount("https://", Adapter())
    return session


def botocore_handler(client: HttpsClient) -> Callable[..., Any]:
    """Return a handler of botocore's event ``before-send``, which answers in its place."""

    def answer(request: Any, **_: Any) -> Any:
        from botocore.awsrequest import AWSResponse

        headers = {
            key: value.decode("latin-1") if isinstance(value, bytes) else str(value)
            for key, value in request.headers.items()
        }
        body = request.body
        data = body.encode() if isinstance(body, str) else body
        found = _asked(client, request.method, request.url, headers, data)
        return AWSResponse(request.url, found.status, dict(found.headers), _as_urllib3(found))

    return answer


def _asked(
    client: HttpsClient, method: str, url: str, headers: dict[str, str], body: bytes | None
) -> Answer:
    server, parts = client.server, urlsplit(url)
    if (
        parts.scheme != "https"
        or (parts.hostname, parts.port or _HTTPS_PORT) != (server.host.lower(), server.port)
        or set("@\\") & set(parts.netloc)
    ):
        raise CredspecError.of(
            "host-account-provider",
            "the client library wants to ask another server",
            where=client.where,
            expected=f"https://{server}/",
        )
    target = parts.path or "/"
    return client.ask(method, f"{target}?{parts.query}" if parts.query else target, headers, body)


def _as_urllib3(answer: Answer) -> Any:
    import urllib3

    return urllib3.HTTPResponse(
        body=io.BytesIO(answer.body),
        headers=urllib3.HTTPHeaderDict(answer.headers),
        status=answer.status,
        reason=answer.reason,
        preload_content=False,
        decode_content=False,
    )
