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
import json
import os
import re
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Final

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
from credspec.http.messages import (
    HttpError,
    Request,
    Response,
    Routes,
    json_response,
)
from credspec.service.events import Event, emit
from credspec.sockets.peers import peer_of

_PROBLEM: Final = "application/problem+json"
# Without a charset, or with the one that JSON has.
_CHARSET: Final = re.compile(r'(?!.*charset).*|.*;\s*charset="?utf-?8"?\s*(;.*)?', re.DOTALL)
_BODY_SECONDS: Final = 10.0
# Of unprivileged users together: root waits for no more of them.
_REQUESTS_A_TURN: Final = 4

_Readiness = Callable[[], Awaitable[list[str]]]
_ReloadFailure = Callable[[], str | None]


async def _always_ready() -> list[str]:
    return []


def make_api(
    leases: Leases,
    identities: Identities,
    *,
    policy: Policy | PolicyInForce | None = None,
    readiness: _Readiness = _always_ready,
    reload_failure: _ReloadFailure = lambda: None,
) -> Api:
    """Return the API, to be served on a Unix socket.

    `readiness` returns the reasons why it cannot serve, in words; empty if there are none.
    `reload_failure` returns why the last reload of the configuration changed nothing, None if it
    did not fail.
    """
    in_force = policy if isinstance(policy, PolicyInForce) else PolicyInForce(policy)
    return Api(leases, Listing(leases, identities), in_force, readiness, reload_failure)


class Api:
    """Answers requests; see `make_api`."""

    def __init__(
        self,
        leases: Leases,
        listing: Listing,
        policy: PolicyInForce,
        readiness: _Readiness,
        reload_failure: _ReloadFailure,
    ) -> None:
        self._leases = leases
        self._listing = listing
        self._policy = policy
        self._readiness = readiness
        self._reload_failure = reload_failure
        self._events = LimitedEvents()
        self._limits = RequestLimits()
        self._turns = PerTurnLimit(_REQUESTS_A_TURN)
        self._routes = Routes[Caller]()
        for method, pattern, handler in (
            ("PUT", "/v1/leases/{id}", self._make_lease),
            ("GET", "/v1/leases", self._list_leases),
            ("GET", "/v1/leases/{id}", self._show_lease),
            ("DELETE", "/v1/leases/{id}", self._release_lease),
            ("POST", "/v1/leases/{id}/kdc", self._serve_kdc),
            ("POST", "/v1/leases/{id}/revoke", self._revoke_lease),
            ("GET", "/v1/lease-directories/{id}", self._show_lease_directory),
            ("GET", "/v1/identities", self._list_identities),
            ("GET", "/v1/domains", self._list_domains),
            ("GET", "/v1/openapi.json", self._openapi),
            ("GET", "/healthz", self._health),
            ("GET", "/readyz", self._ready),
            ("GET", "/metrics", self._metrics),
        ):
            self._routes.add(method, pattern, handler)

    async def answer(self, request: Request) -> Response:
        """Answer a request; every failure is a problem document."""
        caller: Caller | None = None
        where = request.path[:200]
        try:
            caller = self._caller(request)
            return await self._answer(request, caller)
        except CredspecError as error:
            fields = {"method": request.method[:20], "path": where, "error": str(error)}
            self._report(caller, Event.REQUEST_FAILED, **fields)
            return _problem(error)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except HttpError as error:
            return self.refuse(error, where)
        except Exception as error:  # noqa: BLE001 - the caller is answered, others are served
            self._report(caller, Event.INTERNAL_ERROR, path=where, error=type(error).__name__)
            return _problem(internal_error(error, where))

    def refuse(self, error: HttpError, where: str = "") -> Response:
        """Answer what HTTP itself refuses."""
        wrong = UsageError.of(f"http-{error.status}", error.reason, where=where)
        answer = _problem(wrong, status=error.status)
        if error.allow:
            answer.headers["Allow"] = error.allow
        return answer

    def _caller(self, request: Request) -> Caller:
        connection = request.exchange.get_extra_info("socket")
        try:
            peer = None if connection is None else peer_of(connection)
        except OSError:
            peer = None
        if peer is None:
            raise NotPermittedError.of("caller-unknown", "the caller has gone")
        return Caller(peer.uid, peer.pid)

    async def _answer(self, request: Request, caller: Caller) -> Response:
        # The policy may have changed since it connected.
        if not self._policy.allows_user(caller.uid, os.geteuid()):
            fields = {"pid": caller.pid, "path": request.path[:200]}
            self._events.emit(Event.CALLER_REFUSED, caller.uid, **fields)
            return _problem(caller_refused(caller.uid))
        if not _is_privileged(caller):
            await self._turns.wait()
            self._limits.check(caller.uid)
        return await self._routes.find(request)(request, caller)

    def _report(self, caller: Caller | None, event: Event, **fields: str) -> None:
        """Emit an event; those that unprivileged users cause are limited."""
        if caller is not None and not _is_privileged(caller):
            self._events.emit(event, caller.uid, **fields)
        else:
            emit(event, **fields)

    async def _make_lease(self, request: Request, caller: Caller) -> Response:
        body = parse_body(await _body(request))
        record = await self._leases.make(lease_request(request.matched, body, caller))
        environment = LEASE_ENVIRONMENT | (KEYTAB_ENVIRONMENT if record.keytab else {})
        return json_response(record.to_json() | {"environment": environment})

    async def _list_leases(self, request: Request, caller: Caller) -> Response:
        return await send_list(request, "leases", self._listing.leases(_sees(caller)))

    async def _show_lease(self, request: Request, caller: Caller) -> Response:
        return json_response(self._listing.lease(request.matched, _sees(caller)))

    async def _show_lease_directory(self, request: Request, caller: Caller) -> Response:
        if not _is_privileged(caller):
            raise NotPermittedError.of("caller-not-permitted", "only root may ask this")
        is_mounted = self._leases.sees_directory(request.matched)
        return json_response({"lease_id": request.matched, "mounted": is_mounted})

    async def _release_lease(self, request: Request, caller: Caller) -> Response:
        await self._leases.release(request.matched, caller)
        return Response(204)

    async def _serve_kdc(self, request: Request, caller: Caller) -> Response:
        sockets = passed_sockets(request.exchange.get_extra_info("socket"))
        record = await self._leases.serve_kdc(request.matched, sockets, caller)
        return json_response({"lease_id": record.lease_id, "port": record.kdc_port})

    async def _revoke_lease(self, request: Request, caller: Caller) -> Response:
        if not _is_privileged(caller):
            raise NotPermittedError.of("caller-not-permitted", "only root may do this")
        record = await self._leases.revoke(request.matched, caller)
        return json_response(record.to_json())

    async def _list_identities(self, request: Request, caller: Caller) -> Response:
        identities = self._listing.identities(_sees(caller))
        acquisitions = self._listing.acquisitions()
        return await send_list(request, "identities", identities, acquisitions=acquisitions)

    async def _list_domains(self, request: Request, caller: Caller) -> Response:
        return await send_list(request, "domains", self._listing.domains(_sees(caller)))

    async def _openapi(self, request: Request, caller: Caller) -> Response:
        del request, caller
        return Response(body=_description(), headers={"Content-Type": "application/json"})

    async def _health(self, request: Request, caller: Caller) -> Response:
        del request
        failure = self._reload_failure()
        # It quotes the configuration, which is not for all users.
        is_shown = failure is not None and _is_privileged(caller)
        return json_response({"status": "ok"} | ({"reload_error": failure} if is_shown else {}))

    async def _ready(self, request: Request, caller: Caller) -> Response:
        del request, caller
        reasons = await self._readiness()
        if reasons:
            problems = [Problem(code="not-ready", found=reason) for reason in reasons]
            return _problem(CredspecError(*problems), status=503)
        return json_response({"status": "ready"})

    async def _metrics(self, request: Request, caller: Caller) -> Response:
        del request
        text = await self._listing.metrics(_sees(caller))
        return Response(body=text, headers={"Content-Type": "text/plain; charset=utf-8"})


def _is_privileged(caller: Caller) -> bool:
    return caller.uid in {0, os.geteuid()}


def _sees(caller: Caller) -> int | None:
    """Return the user whose leases the caller may see, None for all."""
    return None if _is_privileged(caller) else caller.uid


def _problem(error: CredspecError, status: int | None = None) -> Response:
    document = error.to_json() | ({"status": status} if status else {})
    answer = json_response(document, status or error.http_status, _PROBLEM)
    after = retry_after(error)
    if after is not None:
        answer.headers["Retry-After"] = str(after)
    if isinstance(error, TooManyRequestsError):
        answer.headers["Retry-After"] = str(error.retry_after)
        # The next one has to wait for its turn to connect.
        answer.is_last = True
    return answer


async def _body(request: Request) -> bytes:
    """Return the body, which is never decoded as anything but UTF-8: codecs can be slow."""
    kind = request.headers.get("content-type", "").lower()
    if "content-encoding" in request.headers or not _CHARSET.fullmatch(kind):
        raise HttpError(415)
    length = request.headers.get("content-length", "")
    if len(length) > len(str(MAX_BODY_BYTES)) or int(length or 0) > MAX_BODY_BYTES:
        raise HttpError(413)
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            return await request.exchange.read_body(MAX_BODY_BYTES)
    except TimeoutError:
        raise HttpError(408) from None


@cache
def _description() -> bytes:
    return json.dumps(openapi_document()).encode()
