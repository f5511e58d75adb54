"""What the agent logs: every event has a stable id, a name and a level.

The numbers below 100 that Windows' Container Credential Guard has too (event log
Microsoft-Windows-Containers-CCG/Admin) mean the same here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final


class Event(Enum):
    """An event: id, level, and what it means."""

    TICKET_ACQUIRED = (2, "info", "A gMSA's password was read and its ticket obtained.")
    SPEC_REFUSED = (3, "warning", "A credential spec could not be read, or is not valid.")
    SPEC_INCOMPLETE = (4, "warning", "A spec was accepted that only credentials-fetcher accepts.")
    REFRESH_FAILED = (8, "warning", "A held identity could not be acquired again; it is retried.")

    AGENT_READY = (100, "info", "The agent accepts requests.")
    AGENT_STOPPED = (101, "info", "The agent was stopped; leases stay for the next run.")
    HOST_IDENTITY = (102, "info", "What the host logs on with.")
    PROCESS_NOT_HARDENED = (103, "warning", "A hardening measure could not be applied.")
    HOST_NOT_JOINED = (104, "info", "There is no machine keytab; specs must name a provider.")
    GRPC_READY = (105, "info", "The credentials-fetcher interface is ready.")

    DOMAIN_UNREACHABLE = (
        110,
        "warning",
        "No controller answers; one identity retries for all.",
    )
    DOMAIN_REACHED = (111, "info", "The domain answers again.")
    IDENTITY_DROPPED = (112, "info", "An identity without leases for a minute was dropped.")

    LEASE_GRANTED = (120, "info", "A container was given its tickets.")
    LEASE_DENIED = (121, "warning", "A container was refused its tickets; the error says why.")
    LEASE_RELEASED = (122, "info", "A lease ended and its tickets were wiped.")
    LEASE_ABANDONED = (123, "warning", "A container disappeared; the agent released its lease.")
    LEASE_ADOPTED = (124, "info", "A lease of an earlier run was taken over.")
    LEASE_NOT_ADOPTED = (125, "info", "A lease of an earlier run was ended; its container is gone.")
    LEASE_NOT_RENEWED = (
        126,
        "warning",
        "A lease could not be given its new ticket; it is retried.",
    )
    JOURNAL_RECORD_UNREADABLE = (127, "warning", "A journal record was unreadable; it was wiped.")
    JOURNAL_UNWRITABLE = (128, "warning", "A record of a lease that ended could not be removed.")
    LEASE_REVOKED = (
        129,
        "warning",
        "The configuration no longer allows a lease; its tickets were wiped.",
    )

    LEASE_RENEWED_LATE = (136, "info", "A lease has its new ticket that could not be given before.")

    CALLER_REFUSED = (130, "warning", "A user without permission called the agent.")
    REQUEST_FAILED = (131, "warning", "A request ended with an error.")
    CONNECTIONS_NOT_ACCEPTED = (134, "error", "New connections wait: files or memory are short.")
    LEASES_NOT_CHECKED = (135, "warning", "Whether containers still run could not be checked.")
    INTERNAL_ERROR = (133, "error", "Internal error; the request or acquisition failed.")
    AUDIT_UNWRITABLE = (132, "error", "The audit log cannot be written; nothing is granted.")

    ACCOUNT_PROVIDER_READY = (140, "info", "The account provider accepts requests.")
    ACCOUNT_GIVEN = (141, "info", "A client received its host account.")
    ACCOUNT_REFUSED = (142, "warning", "A client requested an account that is not its own.")

    POLICY_RELOADED = (
        150,
        "info",
        "The configuration was reloaded; leases that it forbids have ended.",
    )
    POLICY_NOT_RELOADED = (151, "error", "The configuration is invalid; the old one stays.")
    CLOCK_CHANGED = (152, "warning", "The clock was set or the host slept; tickets are checked.")

    SERVICE_TICKET_GRANTED = (160, "info", "A container was given a ticket of a service.")
    SERVICE_TICKET_DENIED = (
        161,
        "warning",
        "A container asked for a service that it may not have; look whether it was taken over.",
    )
    SERVICE_TICKET_FAILED = (
        162,
        "warning",
        "A ticket of a service could not be obtained; the former one stays until it ends.",
    )
    SERVICE_OF_MACHINE = (
        163,
        "warning",
        "A service belongs to a machine: its ticket opens all services of that machine.",
    )
    BROKER_SOCKETS_LOST = (
        165,
        "warning",
        "A container's KDC cannot be served any more; only its next start brings it back.",
    )
    LEASE_CUT_OFF = (164, "warning", "Root cut a container off from its account.")

    WEBHOOK_READY = (170, "info", "The admission webhook accepts reviews.")
    POD_REFUSED = (171, "info", "The admission webhook refused a pod; the error says why.")
    WEBHOOK_CERTIFICATE = (172, "info", "The admission webhook serves a new certificate.")
    WEBHOOK_CERTIFICATE_FAILED = (
        173,
        "error",
        "The admission webhook has no new certificate; it goes on with the one it has.",
    )

    CSI_READY = (180, "info", "The CSI driver accepts the kubelet's calls.")
    CSI_REGISTERED = (181, "info", "The kubelet knows the CSI driver.")
    CSI_NOT_REGISTERED = (182, "error", "The kubelet did not take the CSI driver; it says why.")
    VOLUME_PUBLISHED = (183, "info", "A pod was given a volume with its tickets.")
    VOLUME_REVOKED = (
        184,
        "warning",
        "A pod may not have its tickets any more; they were wiped.",
    )
    VOLUME_NOT_REVIEWED = (
        185,
        "warning",
        "The API server did not say whether a pod may keep its tickets; it keeps them.",
    )
    VOLUME_ABANDONED = (186, "warning", "A pod disappeared; the CSI driver removed its volume.")
    VOLUME_FAILED = (187, "warning", "A call for a volume ended with an error.")

    def __init__(self, number: int, level: str, meaning: str) -> None:
        self.number = number
        self.level = level
        self.meaning = meaning

    @property
    def label(self) -> str:
        """The event's name in logs, such as ``lease-granted``."""
        return self.name.lower().replace("_", "-")


def _as_text(fields: dict[str, Any]) -> str:
    return " ".join(f"{key}={value!r}" for key, value in fields.items())


def _as_json(fields: dict[str, Any]) -> str:
    return json.dumps(fields, default=str)


_FORMATS: Final = {"text": _as_text, "json": _as_json}
_render: Callable[[dict[str, Any]], str] = _as_text


def emit(event: Event, **fields: Any) -> None:
    """Log an event to standard error, in one line; fields are plain values, never secrets."""
    line = _render(
        {
            "timestamp": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
            "level": event.level,
            "event": event.label,
            "event_id": event.number,
            **dict(sorted(fields.items())),
        }
    )
    # One write, so that lines of several threads and processes do not mix.
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def set_log_format(log_format: str) -> None:
    """Log in another format from now on, ``text`` (keys and values) or ``json``."""
    global _render  # noqa: PLW0603 - one log, whose format a reload may change
    _render = _FORMATS[log_format]
