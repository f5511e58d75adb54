"""What a session leaves behind on its connection, with the real domain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from credspec.directory.connection import Connection, Entry
from credspec.errors import NotFoundError, NotPermittedError, UnreachableError
from credspec.session.domain_session import DomainSession

PASSWORD = "msDS-ManagedPassword"


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """The attributes of each search that is sent, in their order."""
    sent: list[Sequence[str]] = []
    send = Connection.send_search

    def record(self: Connection, *arguments: Any, **options: Any) -> Callable[[], list[Entry]]:
        sent.append(arguments[2])
        return send(self, *arguments, **options)

    monkeypatch.setattr(Connection, "send_search", record)
    return sent


def last_is_overwritten(searches: list[Sequence[str]]) -> bool:
    passwords = [number for number, each in enumerate(searches) if PASSWORD in each]
    return ("*", "+") in searches[passwords[-1] :]


def test_one_password_is_overwritten(session: DomainSession, searches: list[Sequence[str]]) -> None:
    session.acquire("WebApp01")
    with session.passwords.overwriting():
        session.passwords.read("WebApp01")
    session.acquire_with_keytab("WebApp01")
    assert last_is_overwritten(searches)
    assert searches.count(("*", "+")) == 3


def test_of_many_at_once_the_last_is_overwritten(
    session: DomainSession, searches: list[Sequence[str]]
) -> None:
    names = ["WebApp01", "WebApp02", "WebApp03"] * 8
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(session.acquire, names))
    assert [each.account_name for each in found] == [f"{name}$" for name in names]
    assert last_is_overwritten(searches)


@pytest.mark.parametrize(
    ("account", "error"), [("Nobody01", NotFoundError), ("Forbidden01", NotPermittedError)]
)
def test_a_refusal_in_between_changes_nothing(
    session: DomainSession,
    searches: list[Sequence[str]],
    account: str,
    error: type[Exception],
) -> None:
    session.acquire("WebApp01")
    with pytest.raises(error):
        session.acquire(account)
    assert last_is_overwritten(searches)
    assert session.acquire("WebApp01").account_name == "WebApp01$"


def test_where_nothing_can_be_overwritten_the_connection_goes(
    session: DomainSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Connection) -> Callable[[], None]:
        def wait() -> None:
            raise UnreachableError.of("ldap-timeout", "simulated", where="LDAP")

        return wait

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "overwrite_last_answer", fail)
        assert session.acquire("WebApp01").ticket.principal.startswith("WebApp01$")
        assert session.controller is None
    assert session.acquire("WebApp01").ticket.principal.startswith("WebApp01$")
    assert session.controller is not None
