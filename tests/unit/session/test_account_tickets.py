"""With what account tickets are armoured; the KDC is simulated."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from credspec.kerberos.kdc_errors import PolicyRefusedError
from credspec.kerberos.tickets import Ticket
from credspec.session import account_tickets
from credspec.session.account_tickets import AccountTickets
from credspec.session.host_identity import HOST_CACHE


class Host:
    """A host identity that says nothing of a TGT."""

    cache: str | None = None

    def log_on(self) -> None:
        """Succeed."""


class Kdc:
    """Refuses what is not armoured, and notes with what each request was."""

    def __init__(self, ticket: Ticket) -> None:
        self.armors: list[str | None] = []
        self._ticket = ticket

    def ticket_from_managed_password(self, *_: Any, armor: str | None) -> Ticket:
        self.armors.append(armor)
        if armor is None:
            raise PolicyRefusedError.of("kdc-policy", "simulated")
        return self._ticket


@pytest.mark.parametrize(
    ("own", "variable", "expected"),
    [
        ("MEMORY:own", "FILE:/of/kinit", "MEMORY:own"),
        (None, "FILE:/of/kinit", "FILE:/of/kinit"),
        (None, None, HOST_CACHE),
    ],
)
def test_the_hosts_cache_armours_only_once_a_policy_asks_for_it_simulated(
    monkeypatch: pytest.MonkeyPatch, own: str | None, variable: str | None, expected: str
) -> None:
    """Of an identity without a cache, the process's default cache is the host's."""
    monkeypatch.delenv("KRB5CCNAME", raising=False)
    if variable is not None:
        monkeypatch.setenv("KRB5CCNAME", variable)
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    kdc = Kdc(Ticket("WebApp01$@EXAMPLE.TEST", moment, moment, 18, b""))
    host = Host()
    host.cache = own
    monkeypatch.setattr(
        account_tickets, "ticket_from_managed_password", kdc.ticket_from_managed_password
    )
    tickets = AccountTickets(object(), host)  # type: ignore[arg-type]
    tickets.get("WebApp01$", "EXAMPLE.TEST", b"", 0)  # type: ignore[arg-type]
    assert kdc.armors == [None, expected]
