"""The agent's HTTP API on its Unix socket.

    PUT    /v1/leases/{id}   make a lease: {"spec", "container", "runtime_state", "uid", "gid"}
    GET    /v1/leases        all leases
    GET    /v1/leases/{id}   one lease
    DELETE /v1/leases/{id}   release a lease; 204 also if there was none
    GET    /v1/identities    the identities held, their tickets and when they are next acquired
    GET    /healthz          200 while the agent lives
    GET    /metrics          Prometheus

Errors are problem documents (RFC 9457) with our stable codes, see `CredspecError.to_json`.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from credspec.agent.identities import Identities, Identity
from credspec.agent.journal import LeaseRecord
from credspec.agent.lease_environment import LEASE_ENVIRONMENT
from credspec.agent.leases import LeaseRequest, Leases
from credspec.errors import CredspecError, NotPermittedError, UsageError

_MAX_BODY_BYTES: Final = 256 * 1024  # a raw:// spec of 64 KiB, escaped
_MAX_ID: Final = 2**32 - 2
_PROBLEM: Final = "application/problem+json"

_log = structlog.get_logger()
_leases: Final = web.AppKey("leases", Leases)
_identities: Final = web.AppKey("identities", Identities)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_api(leases: Leases, identities: Identities) -> web.Application:
    """Return the API as an application to be served on a Unix socket."""
    application = web.Application(
        middlewares=[_problems, _root_only], client_max_size=_MAX_BODY_BYTES
    )
    application[_leases] = leases
    application[_identities] = identities
    application.router.add_put("/v1/leases/{id}", _make_lease)
    application.router.add_get("/v1/leases", _list_leases)
    application.router.add_get("/v1/leases/{id}", _show_lease)
    application.router.add_delete("/v1/leases/{id}", _release_lease)
    application.router.add_get("/v1/identities", _list_identities)
    application.router.add_get("/healthz", _health)
    application.router.add_get("/metrics", _metrics)
    return application


@web.middleware
async def _problems(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except CredspecError as error:
        _log.warning("request-failed", method=request.method, path=request.path, error=str(error))
        return _problem(error)
    except web.HTTPException as error:
        wrong = UsageError.of(f"http-{error.status}", error.reason, where=request.path[:200])
        return _problem(wrong, status=error.status)


def _problem(error: CredspecError, status: int | None = None) -> web.Response:
    document = error.to_json() | ({"status": status} if status else {})
    return web.json_response(document, status=status or error.http_status, content_type=_PROBLEM)


@web.middleware
async def _root_only(request: web.Request, handler: _Handler) -> web.StreamResponse:
    transport = request.transport
    peer = transport.get_extra_info("socket") if transport is not None else None
    if peer is None:
        raise NotPermittedError.of("caller-unknown", "the caller has gone")
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    if uid not in {0, os.geteuid()}:
        raise NotPermittedError.of(
            "caller-not-permitted",
            f"user {uid} may not use the agent",
            where="agent socket",
            remedy="ask root",
        )
    return await handler(request)


async def _make_lease(request: web.Request) -> web.Response:
    try:
        body = json.loads(await request.text())
    except (ValueError, RecursionError):
        raise UsageError.of("request-not-json", "the body is not JSON", where="request") from None
    lease_request = _lease_request(request.match_info["id"], body)
    leases = request.app[_leases]
    record = await leases.make(lease_request)
    return web.json_response(record.to_json() | {"environment": LEASE_ENVIRONMENT})


def _lease_request(lease_id: str, body: object) -> LeaseRequest:
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
    if not values["runtime_state"].startswith("/") or "\0" in values["runtime_state"]:
        raise UsageError.of("request-wrong-value", "not an absolute path", where="/runtime_state")
    return LeaseRequest(lease_id=lease_id, **values)


async def _list_leases(request: web.Request) -> web.Response:
    leases = request.app[_leases]
    return web.json_response({"leases": [record.to_json() for record in leases.all()]})


async def _show_lease(request: web.Request) -> web.Response:
    record: LeaseRecord = request.app[_leases].get(request.match_info["id"])
    return web.json_response(record.to_json())


async def _release_lease(request: web.Request) -> web.Response:
    await request.app[_leases].release(request.match_info["id"])
    return web.Response(status=204)


async def _list_identities(request: web.Request) -> web.Response:
    identities = request.app[_identities]
    return web.json_response(
        {
            "acquisitions": identities.acquisitions,
            "identities": [_identity_json(identity) for identity in identities.held()],
        }
    )


def _identity_json(identity: Identity) -> dict[str, Any]:
    acquired = identity.acquisition
    return {
        "account": acquired.account_name,
        "domain": identity.name.domain,
        "leases": len(identity.holders),
        "ticket": {
            "principal": acquired.ticket.principal,
            "start": acquired.ticket.start.isoformat(),
            "end": acquired.ticket.end.isoformat(),
            "enctype": acquired.ticket.enctype,
        },
        "password_read": acquired.read_at.isoformat(),
        "password_due": (acquired.read_at + acquired.password.query_interval).isoformat(),
        "refresh_at": identity.refresh_at.isoformat() if identity.refresh_at else None,
        "last_error": str(identity.last_error) if identity.last_error else None,
    }


async def _health(request: web.Request) -> web.Response:
    del request
    return web.json_response({"status": "ok"})


async def _metrics(request: web.Request) -> web.Response:
    registry = CollectorRegistry()
    registry.register(_Snapshot(request.app[_leases], request.app[_identities]))
    return web.Response(body=generate_latest(registry), content_type="text/plain")


class _Snapshot:
    """What Prometheus is told, taken when it asks."""

    def __init__(self, leases: Leases, identities: Identities) -> None:
        self._leases = leases
        self._identities = identities

    def collect(self) -> list[Metric]:
        held = self._identities.held()
        ends = GaugeMetricFamily(
            "credspec_ticket_end_seconds",
            "When the ticket ends, in seconds since 1970.",
            labels=["account", "domain"],
        )
        for identity in held:
            end = identity.acquisition.ticket.end.timestamp()
            ends.add_metric([identity.name.account, identity.name.domain], end)
        return [
            GaugeMetricFamily("credspec_leases", "Leases held.", len(self._leases.all())),
            GaugeMetricFamily("credspec_identities", "Identities held.", len(held)),
            CounterMetricFamily(
                "credspec_acquisitions",
                "Password reads that led to a ticket.",
                self._identities.acquisitions,
            ),
            ends,
        ]
