"""The agent's HTTP API on its Unix socket; `/v1/openapi.json` describes it.

    PUT    /v1/leases/{id}   make a lease: {"spec", "container", "runtime_state", "uid", "gid"},
                             and if wanted {"mode", "keytab"}
    GET    /v1/leases        all leases
    GET    /v1/leases/{id}   one lease
    DELETE /v1/leases/{id}   release a lease; 204 also if there was none
    GET    /v1/lease-directories/{id}   whether a lease's directory is mounted here; for root alone
    GET    /v1/identities    the identities held, their tickets and when they are next acquired
    GET    /v1/domains       the domains asked so far, the controllers in use, outages
    GET    /healthz          200 while the agent lives
    GET    /readyz           200 while it can serve, else 503 and why
    GET    /metrics          Prometheus

Errors are problem documents (RFC 9457) with our stable codes, see `CredspecError.to_json`.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import PayloadEncodingError

from credspec.agent.audit import Caller
from credspec.agent.events import Event, emit
from credspec.agent.identities import DomainStatus, Identities, Identity
from credspec.agent.journal import LeaseRecord
from credspec.agent.lease_environment import KEYTAB_ENVIRONMENT, LEASE_ENVIRONMENT
from credspec.agent.leases import LeaseRequest, Leases
from credspec.agent.metrics import metrics_text
from credspec.agent.openapi import openapi_document
from credspec.agent.policy import Policy
from credspec.errors import CredspecError, NotPermittedError, Problem, UsageError, internal_error

_MAX_BODY_BYTES: Final = 256 * 1024  # a raw:// spec of 64 KiB, escaped
_MAX_ID: Final = 2**32 - 2
_DEFAULT_MODE: Final = 0o600
_MODE_BITS: Final = 0o666
_OWNER_READS: Final = 0o400
_PROBLEM: Final = "application/problem+json"

_BODY_SECONDS: Final = 10.0

_Readiness = Callable[[], list[str]]
_leases: Final = web.AppKey("leases", Leases)
_identities: Final = web.AppKey("identities", Identities)
_policy: Final = web.AppKey("policy", Policy)
_readiness: Final[web.AppKey[_Readiness]] = web.AppKey("readiness", Callable)  # type: ignore[arg-type]
_caller: Final = web.RequestKey("caller", Caller)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_api(
    leases: Leases,
    identities: Identities,
    *,
    policy: Policy | None = None,
    readiness: Callable[[], list[str]] = list,
) -> web.Application:
    """Return the API as an application to be served on a Unix socket.

    `readiness` returns what stands in the way of serving, in words; empty while nothing does.
    """
    application = web.Application(
        middlewares=[_problems, _known_callers_only], client_max_size=_MAX_BODY_BYTES
    )
    application[_leases] = leases
    application[_identities] = identities
    application[_policy] = policy or Policy()
    application[_readiness] = readiness
    application.router.add_put("/v1/leases/{id}", _make_lease)
    application.router.add_get("/v1/leases", _list_leases)
    application.router.add_get("/v1/leases/{id}", _show_lease)
    application.router.add_delete("/v1/leases/{id}", _release_lease)
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
        emit(
            Event.REQUEST_FAILED,
            method=request.method,
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
    except Exception as error:  # noqa: BLE001 - the caller is told, and the others are served
        emit(Event.INTERNAL_ERROR, path=request.path[:200], error=type(error).__name__)
        return _problem(internal_error(error, request.path[:200]))


def _problem(error: CredspecError, status: int | None = None) -> web.Response:
    document = error.to_json() | ({"status": status} if status else {})
    return web.json_response(document, status=status or error.http_status, content_type=_PROBLEM)


@web.middleware
async def _known_callers_only(request: web.Request, handler: _Handler) -> web.StreamResponse:
    transport = request.transport
    peer = transport.get_extra_info("socket") if transport is not None else None
    if peer is None:
        raise NotPermittedError.of("caller-unknown", "the caller has gone")
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", credentials)
    if not request.app[_policy].allows_user(uid, os.geteuid()):
        emit(Event.CALLER_REFUSED, uid=uid, pid=pid, path=request.path[:200])
        raise NotPermittedError.of(
            "caller-not-permitted",
            f"user {uid} may not use the agent",
            where="agent socket",
            remedy="ask root, or add the user to users under [policy] in the configuration",
        )
    request[_caller] = Caller(uid, pid)
    return await handler(request)


async def _make_lease(request: web.Request) -> web.Response:
    lease_request = _lease_request(
        request.match_info["id"], await _json_body(request), request[_caller]
    )
    record = await request.app[_leases].make(lease_request)
    environment = LEASE_ENVIRONMENT | (KEYTAB_ENVIRONMENT if record.keytab else {})
    return web.json_response(record.to_json() | {"environment": environment})


async def _json_body(request: web.Request) -> object:
    if (request.content_length or 0) > _MAX_BODY_BYTES:
        raise web.HTTPRequestEntityTooLarge(_MAX_BODY_BYTES, request.content_length or 0)
    if "Content-Encoding" in request.headers:
        raise web.HTTPUnsupportedMediaType
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            return json.loads(await request.text())
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    except PayloadEncodingError:
        raise web.HTTPBadRequest from None
    except (ValueError, RecursionError, LookupError):
        raise UsageError.of("request-not-json", "the body is not JSON", where="request") from None


def _lease_request(lease_id: str, body: object, caller: Caller) -> LeaseRequest:
    wanted: dict[str, type] = {
        "spec": str,
        "container": str,
        "runtime_state": str,
        "uid": int,
        "gid": int,
    }
    if not isinstance(body, dict):
        raise UsageError.of("request-wrong-type", "the body is not an object", where="request")
    values: dict[str, Any] = {}
    for name, kind in wanted.items():
        value = body.get(name)
        in_range = not isinstance(value, int) or 0 <= value <= _MAX_ID
        if type(value) is not kind or not in_range:
            raise UsageError.of(
                "request-wrong-type",
                repr(value)[:80],
                where=f"/{name}",
                expected="a text" if kind is str else f"a number from 0 to {_MAX_ID}",
            )
        values[name] = value
    values["mode"] = mode = body.get("mode", _DEFAULT_MODE)
    if type(mode) is not int or mode & ~_MODE_BITS or not mode & _OWNER_READS:
        raise UsageError.of(
            "request-wrong-value",
            repr(mode)[:80],
            where="/mode",
            expected="permission bits of a file that its owner can read and nobody execute",
        )
    values["keytab"] = body.get("keytab", False)
    if type(values["keytab"]) is not bool:
        raise UsageError.of(
            "request-wrong-type",
            repr(values["keytab"])[:80],
            where="/keytab",
            expected="true or false",
        )
    if not values["runtime_state"].startswith("/") or "\0" in values["runtime_state"]:
        raise UsageError.of("request-wrong-value", "not an absolute path", where="/runtime_state")
    return LeaseRequest(lease_id=lease_id, caller=caller, **values)


async def _list_leases(request: web.Request) -> web.Response:
    leases = request.app[_leases]
    return web.json_response({"leases": [record.to_json() for record in leases.all()]})


async def _show_lease(request: web.Request) -> web.Response:
    record: LeaseRecord = request.app[_leases].get(request.match_info["id"])
    return web.json_response(record.to_json())


async def _show_lease_directory(request: web.Request) -> web.Response:
    if request[_caller].uid not in {0, os.geteuid()}:
        raise NotPermittedError.of("caller-not-permitted", "only root may ask this")
    lease_id = request.match_info["id"]
    is_mounted = request.app[_leases].sees_directory(lease_id)
    return web.json_response({"lease_id": lease_id, "mounted": is_mounted})


async def _release_lease(request: web.Request) -> web.Response:
    await request.app[_leases].release(request.match_info["id"], request[_caller])
    return web.Response(status=204)


async def _list_identities(request: web.Request) -> web.Response:
    identities = request.app[_identities]
    return web.json_response(
        {
            "acquisitions": identities.acquisitions,
            "identities": [_identity_json(identities, each) for each in identities.held()],
        }
    )


def _identity_json(identities: Identities, identity: Identity) -> dict[str, Any]:
    ticket = identity.ticket
    return {
        "account": identity.name.account,
        "domain": identity.name.domain,
        "host_account": str(identity.name.source) if identity.name.source else None,
        "leases": len(identity.holders),
        "ticket": {
            "principal": ticket.principal if ticket else None,
            "start": identity.start.isoformat(),
            "end": identity.end.isoformat(),
            "enctype": ticket.enctype if ticket else None,
        },
        "password_due": _moment(identity.password_due),
        "refresh_at": _moment(identities.refresh_at(identity.name)),
        "last_error": str(identity.last_error) if identity.last_error else None,
    }


async def _list_domains(request: web.Request) -> web.Response:
    domains = request.app[_identities].domains()
    return web.json_response({"domains": [_domain_json(domain) for domain in domains]})


def _domain_json(status: DomainStatus) -> dict[str, Any]:
    return {
        "domain": status.domain,
        "host_account": status.source or None,
        "controller": status.controller,
        "latency_seconds": status.latency,
        "outage_since": _moment(status.outage_since),
        "last_error": str(status.last_error) if status.last_error else None,
    }


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


async def _openapi(request: web.Request) -> web.Response:
    del request
    return web.json_response(openapi_document())


async def _health(request: web.Request) -> web.Response:
    del request
    return web.json_response({"status": "ok"})


async def _ready(request: web.Request) -> web.Response:
    reasons = request.app[_readiness]()
    if reasons:
        problems = [Problem(code="not-ready", found=reason) for reason in reasons]
        return _problem(CredspecError(*problems), status=503)
    return web.json_response({"status": "ready"})


async def _metrics(request: web.Request) -> web.Response:
    text = metrics_text(request.app[_leases], request.app[_identities])
    return web.Response(body=text, content_type="text/plain")
