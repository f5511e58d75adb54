"""The OpenAPI 3.1 description of the agent's API; it is what `/v1/openapi.json` serves."""

from __future__ import annotations

from typing import Any, Final

from credspec import __version__
from credspec.agent.doors.http.lease_fields import (
    ABSOLUTE_PATH,
    MAX_CONTAINER,
    MAX_ID,
    MAX_NAME_BYTES,
    MAX_PATH_BYTES,
    MAX_RAW_CHARACTERS,
    MODE_BITS,
    OWNER_READS,
    PLAIN_TEXT,
)
from credspec.agent.leases.record import LEASE_ID
from credspec.config.policy import GRPC_SOURCE, KUBERNETES_SOURCE, SPEC_SOURCES
from credspec.contract.service_names import MOST_CHARACTERS, MOST_SERVICES, TGT, TICKETS

_TIME: Final = {"type": "string", "format": "date-time"}
_TIME_OR_NULL: Final = {"type": ["string", "null"], "format": "date-time"}
_TEXT_OR_NULL: Final = {"type": ["string", "null"]}
_TICKETS: Final = {
    "type": "string",
    "enum": [*TICKETS],
    "description": "what the files hold: a ticket-granting ticket, tickets of the services only, "
    "or a decoy that only the agent understands",
}
_SERVICES: Final = {
    "type": "array",
    "items": {"type": "string", "maxLength": MOST_CHARACTERS},
    "maxItems": MOST_SERVICES,
    "description": "the services that the container needs, CLASS/HOST[:PORT][@REALM]; patterns "
    "with tickets=broker only",
}
_HOST_ID: Final = {"type": "integer", "minimum": 0, "maximum": MAX_ID}
_PATH: Final = {"type": "string", "pattern": ABSOLUTE_PATH, "maxLength": MAX_PATH_BYTES}
_MODE: Final = {
    "type": "integer",
    "enum": [m for m in range(MODE_BITS + 1) if m & OWNER_READS and not m & ~MODE_BITS],
    "description": "the permission bits of the files",
}
_ID: Final = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "The lease's id: 32 hexadecimal digits, chosen by the caller.",
    "schema": {"type": "string", "pattern": f"^{LEASE_ID.pattern}$"},
}


def _object(*, optional: dict[str, Any] | None = None, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties | (optional or {}),
        "required": list(properties),
    }


_SCHEMAS: Final[dict[str, Any]] = {
    "LeaseRequest": _object(
        spec={
            "type": "string",
            "pattern": "^(file|raw|registry)://.",
            "maxLength": MAX_RAW_CHARACTERS,
            "description": "file://NAME in the host's spec directory, or raw://DOCUMENT",
        },
        container={
            "type": "string",
            "pattern": PLAIN_TEXT,
            "maxLength": MAX_CONTAINER,
            "description": "the runtime's id of the container",
        },
        runtime_state=_PATH
        | {
            "description": "The directory that exists as long as the container does; less than "
            f"{MAX_PATH_BYTES} bytes, each part at most {MAX_NAME_BYTES}. That of an "
            "unprivileged user is below /run/user/UID or the user's home.",
        },
        uid=_HOST_ID | {"description": "the host's number of the container's user"},
        gid=_HOST_ID | {"description": "the host's number of the container's group"},
        optional={
            "spec_source": {
                "type": "string",
                "enum": [KUBERNETES_SOURCE],
                "description": "where a document (raw://) was read from, if that is not for the "
                "one who starts the container to choose; only root says so",
            },
            "mode": _MODE | {"default": 0o600},
            "keytab": {
                "type": "boolean",
                "default": False,
                "description": "whether to add a keytab of the accounts, krb5.keytab",
            },
            "name_fallback": {
                "type": "boolean",
                "default": False,
                "description": "whether krb5.conf may have dns_canonicalize_hostname = fallback, "
                "which krb5 before 1.18 cannot read",
            },
            "replay_cache": {
                "type": "boolean",
                "default": False,
                "description": "whether the directory has one for replay caches, rcache",
            },
            "tickets": _TICKETS | {"default": TGT},
            "services": _SERVICES,
        },
    ),
    "Lease": _object(
        lease_id={"type": "string"},
        container={"type": "string"},
        runtime_state={"type": "string"},
        uid=_HOST_ID,
        gid=_HOST_ID,
        domain={"type": "string"},
        default_account={"type": "string"},
        accounts={"type": "array", "items": {"type": "string"}},
        created=_TIME,
        ready={"type": "boolean"},
        ticket_start=_TIME_OR_NULL,
        ticket_end=_TIME_OR_NULL,
        user={"type": ["integer", "null"]},
        mode=_MODE,
        keytab={"type": "boolean"},
        keytab_due=_TIME_OR_NULL,
        name_fallback={"type": "boolean"},
        replay_cache={"type": "boolean"},
        place=_TEXT_OR_NULL,
        tickets=_TICKETS,
        services=_SERVICES,
        revoked={"type": "boolean", "description": "whether root cut the container off"},
        kdc_port={
            "type": ["integer", "null"],
            "description": "the port of its container's loopback at which the agent is its KDC",
        },
        spec_source={"type": "string", "enum": [*SPEC_SOURCES, GRPC_SOURCE]},
        created_monotonic={
            "type": ["number", "null"],
            "description": "when it was made by CLOCK_MONOTONIC, in seconds",
        },
        host_source={"type": ["object", "null"], "additionalProperties": {"type": "string"}},
    ),
    "Identity": _object(
        account={"type": "string"},
        domain={"type": "string"},
        host_account=_TEXT_OR_NULL,
        leases={"type": "integer"},
        ticket=_object(
            principal=_TEXT_OR_NULL,
            start=_TIME,
            end=_TIME,
            enctype={"type": ["integer", "null"]},
        ),
        password_due=_TIME_OR_NULL,
        refresh_at=_TIME_OR_NULL,
        last_error=_TEXT_OR_NULL,
    ),
    "Domain": _object(
        domain={"type": "string"},
        host_account=_TEXT_OR_NULL,
        controller=_TEXT_OR_NULL,
        latency_seconds={"type": ["number", "null"]},
        outage_since=_TIME_OR_NULL,
        last_error=_TEXT_OR_NULL,
    ),
    "Problem": {
        "description": "RFC 9457, with every problem and its stable code",
        "type": "object",
        "required": ["status", "problems"],
        "properties": {
            "status": {"type": "integer"},
            "problems": {
                "type": "array",
                "minItems": 1,
                "items": _object(
                    code={"type": "string"},
                    where={"type": "string"},
                    found={"type": "string"},
                    expected={"type": "string"},
                    remedy={"type": "string"},
                ),
            },
        },
    },
}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _answer(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _list(name: str, schema: str, **more: Any) -> dict[str, Any]:
    return _object(**more, **{name: {"type": "array", "items": _ref(schema)}})


def _operation(
    name: str, text: str, answers: dict[str, Any], *problems: int, **more: Any
) -> dict[str, Any]:
    refused = {
        "description": "refused or failed; the problems say why",
        "content": {"application/problem+json": {"schema": _ref("Problem")}},
    }
    # What every request may get: 400 if it is malformed, 403 for a user who may not ask, 429 for
    # one who asks too often.
    statuses = {str(status): refused for status in (400, 403, 429, *problems)}
    return {"operationId": name, "summary": text, "responses": answers | statuses} | more


def openapi_document() -> dict[str, Any]:
    """Return the document as JSON values."""
    with_environment = {
        "allOf": [_ref("Lease"), _object(environment={"type": "object"})],
    }
    body = {
        "required": True,
        "content": {"application/json": {"schema": _ref("LeaseRequest")}},
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "credspec agent",
            "version": __version__,
            "description": "Leases of group Managed Service Accounts for containers.",
        },
        "paths": {
            "/v1/leases": {
                "get": _operation(
                    "listLeases",
                    "The leases that the caller may see, oldest first",
                    {"200": _answer("the leases", _list("leases", "Lease"))},
                )
            },
            "/v1/leases/{id}": {
                "parameters": [_ID],
                "get": _operation(
                    "getLease", "One lease", {"200": _answer("the lease", _ref("Lease"))}, 404
                ),
                "put": _operation(
                    "makeLease",
                    "Make or replace a lease; every account has its ticket, or all is as it was",
                    {"200": _answer("the lease", with_environment)},
                    *(404, 408, 413, 415, 422, 500, 503),
                    requestBody=body,
                ),
                "delete": _operation(
                    "releaseLease",
                    "Release a lease and wipe its tickets",
                    {"204": {"description": "there is no such lease any more"}},
                ),
            },
            "/v1/leases/{id}/kdc": {
                "parameters": [_ID],
                "post": _operation(
                    "serveKdc",
                    "Serve a lease with tickets=broker at a TCP and a UDP socket of its container, "
                    "which come along by SCM_RIGHTS",
                    {
                        "200": _answer(
                            "the port",
                            _object(lease_id={"type": "string"}, port={"type": "integer"}),
                        )
                    },
                    *(404, 500, 503),
                ),
            },
            "/v1/leases/{id}/revoke": {
                "parameters": [_ID],
                "post": _operation(
                    "revokeLease",
                    "Cut a container off from its accounts until it ends; for root only",
                    {"200": _answer("the lease, without tickets", _ref("Lease"))},
                    *(404, 500),
                ),
            },
            "/v1/lease-directories/{id}": {
                "parameters": [_ID],
                "get": _operation(
                    "getLeaseDirectory",
                    "Whether a lease's mount on the host is visible to the agent; for root only",
                    {
                        "200": _answer(
                            "whether it is",
                            _object(lease_id={"type": "string"}, mounted={"type": "boolean"}),
                        )
                    },
                ),
            },
            "/v1/identities": {
                "get": _operation(
                    "listIdentities",
                    "The identities held that the caller may see",
                    {
                        "200": _answer(
                            "the identities",
                            _list("identities", "Identity", acquisitions={"type": "integer"}),
                        )
                    },
                )
            },
            "/v1/domains": {
                "get": _operation(
                    "listDomains",
                    "The domains asked so far",
                    {"200": _answer("the domains", _list("domains", "Domain"))},
                )
            },
            "/v1/openapi.json": {
                "get": _operation(
                    "getDescription",
                    "This document",
                    {"200": _answer("OpenAPI 3.1", {"type": "object"})},
                )
            },
            "/healthz": {
                "get": _operation(
                    "isAlive",
                    "Whether the agent lives",
                    {
                        "200": _answer(
                            "it does; for root, why the last reload of the configuration failed",
                            _object(
                                optional={"reload_error": {"type": "string"}},
                                status={"const": "ok"},
                            ),
                        )
                    },
                )
            },
            "/readyz": {
                "get": _operation(
                    "isReady",
                    "Whether it can serve",
                    {"200": _answer("it can", _object(status={"const": "ready"}))},
                    503,
                )
            },
            "/metrics": {
                "get": _operation(
                    "getMetrics",
                    "Prometheus",
                    {
                        "200": {
                            "description": "metrics",
                            "content": {"text/plain": {"schema": {"type": "string"}}},
                        }
                    },
                )
            },
        },
        "components": {"schemas": _SCHEMAS},
    }
