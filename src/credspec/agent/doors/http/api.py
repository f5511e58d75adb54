"""The agent's HTTP API on its Unix socket; `/v1/openapi.json` describes it.

    PUT    /v1/leases/{id}   make a lease: {"spec", "container", "runtime_state", "uid", "gid"},
                             and if wanted {"mode", "keytab"}
    GET    /v1/leases        the leases that the caller may see
    GET    /v1/leases/{id}   one lease
    POST   /v1/leases/{id}/kdc   serve a lease in mode broker at a TCP and a UDP socket that
                             come along (SCM_RIGHTS of unix(7)), open in its container
    DELETE /v1/leases/{id}   release a lease; 204 also if there was none
    POST   /v1/leases/{id}/revoke   cut the container off from its accounts; for root only
    GET    /v1/lease-directories/{id}   whether a lease's directory is mounted here; for root only
    GET    /v1/identities    the identities held, their tickets and when they are next acquired
    GET    /v1/domains       the domains asked so far, the controllers in use, outages
    GET    /healthz          200 while the agent lives
    GET    /readyz           200 while it can serve, else 503 and why
    GET    /metrics          Prometheus

Root sees everything, an unprivileged user its own leases and what belongs to them. Errors are
problem documents (RFC 9457) with our stable codes, see `CredspecError.to_json`. No request may
hold the event loop: bodies are bounded, lists are sent in pieces, few requests begin in a turn.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import PayloadEncodingError

from credspec.agent.audit import Caller
from credspec.agent.doors.http.lease_fields import MAX_BODY_BYTES, lease_request, parse_body
from credspec.agent.doors.http.listing import Listing, send_list
from credspec.agent.doors.http.openapi import openapi_document
from credspec.agent.doors.http.passed_sockets import passed_sockets
from credspec.agent.doors.http.passing_errors import retry_after
from credspec.agent.doors.http.per_turn_limit import PerTurnLimit
from credspec.agent.identities.identities import Identities
from credspec.agent.leases.leases import Leases
from credspec.agent.leases.limits import RequestLimits
from credspec.agent.report_limit import LimitedEvents
from credspec.config.policy import Policy, PolicyInForce, caller_refused
from credspec.contract.lease_environment import KEYTAB_ENVIRONMENT, LEASE_ENVIRONMENT
from credspec.errors import (
    CredspecError,
    NotPermittedError,
    Problem,
    TooManyRequestsError,
    UsageError,
    internal_error,
)
from credspec.service.events import Event, emit
from credspec.sockets.peers import peer_of

_PROBLEM: Final = "application/problem+json"
_CHARSETS: Final = frozenset({None, "utf-8", "utf8"})
_BODY_SECONDS: Final = 10.0
# Of unprivileged users together: root waits for no more of them.
_REQUESTS_A_TURN: Final = 4

_Readiness = Callable[[], Awaitable[list[str]]]
_leases: Final = web.AppKey("leases", Leases)
_listing: Final = web.AppKey("listing", Listing)
_policy: Final = web.AppKey("policy", PolicyInForce)
_ReloadFailure = Callable[[], str | None]
_reload_failure: Final[web.AppKey[_ReloadFailure]] = web.AppKey("reload_failure", Callable)  # type: ignore[arg-type]
_events: Final = web.AppKey("events", LimitedEvents)
_limits: Final = web.AppKey("limits", RequestLimits)
_turns: Final = web.AppKey("turns", PerTurnLimit)
_readiness: Final[web.AppKey[_Readiness]] = web.AppKey("readiness", Callable)  # type: ignore[arg-type]
_caller: Final = web.RequestKey("caller", Caller)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def _always_ready() -> list[str]:
    return []


def make_api(
    leases: Leases,
    identities: Identities,
    *,
    policy: Policy | PolicyInForce | None = None,
    readiness: _Readiness = _always_ready,
    reload_failure: Callable[[], str | None] = lambda: None,
) -> web.Application:
    """Return the API as an application to be served on a Unix socket.

    `readiness` returns the reasons why it cannot serve, in words; empty if there are none.
    `reload_failure` returns why the last reload of the configuration changed nothing, None if it
    did not fail.
    """
    application = web.Application(
        middlewares=[_problems, _known_callers_only], client_max_size=MAX_BODY_BYTES
    )
    application[_leases] = leases
    application[_listing] = Listing(leases, identities)
    in_force = policy if isinstance(policy, PolicyInForce) else PolicyInForce(policy)
    application[_policy] = in_force
    application[_events] = LimitedEvents()
    application[_limits] = RequestLimits()
    application[_turns] = PerTurnLimit(_REQUESTS_A_TURN)
    application[_readiness] = readiness
    application[_reload_failure] = reload_failure
    application.router.add_put("/v1/leases/{id}", _make_lease)
    application.router.add_get("/v1/leases", _list_leases)
    application.router.add_get("/v1/leases/{id}", _show_lease)
    application.router.add_delete("/v1/leases/{id}", _release_lease)
    application.router.add_post("/v1/leases/{id}/kdc", _serve_kdc)
    application.router.add_post("/v1/leases/{id}/revoke", _revoke_lease)
    application.router.add_get("/v1/lease-directories/{id}", _show_lease_directory)
    application.router.add_get("/v1/identities", _list_identities)
    application.router.add_get("/v1/domains", _list_domains)
    application.router.add_get("/v1/openapi.json", _openapi)
    application.router.add_get("/healthz", _health)
    application.router.add_get("/readyz", _ready)
    application.router.add_get("/metrics", _metrics)
    return application


@web.middleware
async def _problems(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except CredspecError as error:
        _report(
            request,
            Event.REQUEST_FAILED,
            method=request.method[:20],
            path=request.path[:200],
            error=str(error),
        )
        return _problem(error)
    except (asyncio.CancelledError, ConnectionError):
        raise
    except web.HTTPException as error:
        wrong = UsageError.of(f"http-{error.status}", error.reason, where=request.path[:200])
        answer = _problem(wrong, status=error.status)
        if "Allow" in error.headers:
            answer.headers["Allow"] = error.headers["Allow"]
        return answer
    except Exception as error:  # noqa: BLE001 - the caller is answered, others are served
        _report(request, Event.INTERNAL_ERROR, path=request.path[:200], error=type(error).__name__)
        return _problem(internal_error(error, request.path[:200]))


def _report(request: web.Request, event: Event, **fields: str) -> None:
    """Emit an event; those that unprivileged users cause are limited."""
    caller = request.get(_caller)
    if caller is not None and not _is_privileged(caller):
        request.app[_events].emit(event, caller.uid, **fields)
    else:
        emit(event, **fields)


def _is_privileged(caller: Caller) -> bool:
    return caller.uid in {0, os.geteuid()}


def _problem(error: CredspecError, status: int | None = None) -> web.Response:
    document = error.to_json() | ({"status": status} if status else {})
    answer = web.json_response(document, status=status or error.http_status, content_type=_PROBLEM)
    after = retry_after(error)
    if after is not None:
        answer.headers["Retry-After"] = str(after)
    if isinstance(error, TooManyRequestsError):
        answer.headers["Retry-After"] = str(error.retry_after)
        # The next one has to wait for its turn to connect.
        answer.force_close()
    return answer


@web.middleware
async def _known_callers_only(request: web.Request, handler: _Handler) -> web.StreamResponse:
    transport = request.transport
    connection = transport.get_extra_info("socket") if transport is not None else None
    try:
        peer = None if connection is None else peer_of(connection)
    except OSError:
        peer = None
    if peer is None:
        raise NotPermittedError.of("caller-unknown", "the caller has gone")
    # The policy may have changed since it connected.
    if not request.app[_policy].allows_user(peer.uid, os.geteuid()):
        request.app[_events].emit(
            Event.CALLER_REFUSED, peer.uid, pid=peer.pid, path=request.path[:200]
        )
        return _problem(caller_refused(peer.uid))
    caller = request[_caller] = Caller(peer.uid, peer.pid)
    if not _is_privileged(caller):
        await request.app[_turns].wait()
        request.app[_limits].check(caller.uid)
    return await handler(request)


async def _make_lease(request: web.Request) -> web.Response:
    body = parse_body(await _body(request))
    wanted = lease_request(request.match_info["id"], body, request[_caller])
    record = await request.app[_leases].make(wanted)
    environment = LEASE_ENVIRONMENT | (KEYTAB_ENVIRONMENT if record.keytab else {})
    return web.json_response(record.to_json() | {"environment": environment})


async def _body(request: web.Request) -> bytes:
    """Return the body, which is never decoded as anything but UTF-8: codecs can be slow."""
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise web.HTTPRequestEntityTooLarge(MAX_BODY_BYTES, request.content_length or 0)
    charset = request.charset
    if "Content-Encoding" in request.headers or (charset and charset.lower()) not in _CHARSETS:
        raise web.HTTPUnsupportedMediaType
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    except PayloadEncodingError:
        raise web.HTTPBadRequest from None


async def _list_leases(request: web.Request) -> web.StreamResponse:
    listing = request.app[_listing]
    return await send_list(request, "leases", listing.leases(_sees(request)))


async def _show_lease(request: web.Request) -> web.Response:
    listing = request.app[_listing]
    return web.json_response(listing.lease(request.match_info["id"], _sees(request)))


def _sees(request: web.Request) -> int | None:
    """Return the user whose leases the caller may see, None for all."""
    caller = request[_caller]
    return None if _is_privileged(caller) else caller.uid


async def _show_lease_directory(request: web.Request) -> web.Response:
    if request[_caller].uid not in {0, os.geteuid()}:
        raise NotPermittedError.of("caller-not-permitted", "only root may ask this")
    lease_id = request.match_info["id"]
    is_mounted = request.app[_leases].sees_directory(lease_id)
    return web.json_response({"lease_id": lease_id, "mounted": is_mounted})


async def _release_lease(request: web.Request) -> web.Response:
    await request.app[_leases].release(request.match_info["id"], request[_caller])
    return web.Response(status=204)


async def _serve_kdc(request: web.Request) -> web.Response:
    sockets = passed_sockets(request.transport)
    record = await request.app[_leases].serve_kdc(
        request.match_info["id"], sockets, request[_caller]
    )
    return web.json_response({"lease_id": record.lease_id, "port": record.kdc_port})


async def _revoke_lease(request: web.Request) -> web.Response:
    caller = request[_caller]
    if not _is_privileged(caller):
        raise NotPermittedError.of("caller-not-permitted", "only root may do this")
    record = await request.app[_leases].revoke(request.match_info["id"], caller)
    return web.json_response(record.to_json())


async def _list_identities(request: web.Request) -> web.StreamResponse:
    listing = request.app[_listing]
    identities = listing.identities(_sees(request))
    return await send_list(request, "identities", identities, acquisitions=listing.acquisitions())


async def _list_domains(request: web.Request) -> web.StreamResponse:
    listing = request.app[_listing]
    return await send_list(request, "domains", listing.domains(_sees(request)))


@cache
def _description() -> bytes:
    return web.json_response(openapi_document()).body  # type: ignore[return-value]


async def _openapi(request: web.Request) -> web.Response:
    del request
    return web.Response(body=_description(), content_type="application/json")


async def _health(request: web.Request) -> web.Response:
    failure = request.app[_reload_failure]()
    # It quotes the configuration, which is not for all users.
    is_shown = failure is not None and _is_privileged(request[_caller])
    return web.json_response({"status": "ok"} | ({"reload_error": failure} if is_shown else {}))


async def _ready(request: web.Request) -> web.Response:
    reasons = await request.app[_readiness]()
    if reasons:
        problems = [Problem(code="not-ready", found=reason) for reason in reasons]
        return _problem(CredspecError(*problems), status=503)
    return web.json_response({"status": "ready"})


async def _metrics(request: web.Request) -> web.Response:
    text = await request.app[_listing].metrics(_sees(request))
    return web.Response(body=text, content_type="text/plain")
