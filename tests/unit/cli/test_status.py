"""What ``credspec status`` shows of an agent's answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from credspec.cli import status

EMPTY: dict[str, Any] = {"leases": [], "identities": [], "domains": []}
ERROR = "[config-not-toml] x"


class SimulatedClient:
    def __init__(self, **health: str) -> None:
        self._health = health

    def get(self, path: str) -> dict[str, Any]:
        if path == "/healthz":
            return {"status": "ok", **self._health}
        return {path.rpartition("/")[2]: []}


def test_a_reload_that_failed_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    state = status._state(SimulatedClient(reload_error=ERROR))  # type: ignore[arg-type]
    assert state == EMPTY | {"reload_error": ERROR}
    status._console().print(status._tables(state, [], boxes=False))
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"Configuration not reloaded, the old one is in force: {ERROR}"
    assert second == "No leases."


def test_nothing_is_said_of_a_reload_that_did_not_fail() -> None:
    assert status._state(SimulatedClient()) == EMPTY  # type: ignore[arg-type]


def state_of(domain: str, account: str) -> dict[str, Any]:
    now = datetime.now(UTC)

    def at(hours: int) -> str:
        return (now + timedelta(hours=hours, seconds=30)).isoformat()

    ticket = {"start": at(-1), "end": at(9)}
    return {
        "domains": [
            {
                "domain": domain,
                "controller": f"dc01.{domain}",
                "latency_seconds": 0.012,
                "outage_since": at(-2),
                "last_error": f"[ldap-unreachable] no controller of {domain} answers",
            }
        ],
        "identities": [
            {
                "account": account,
                "domain": domain,
                "leases": 12,
                "ticket": ticket,
                "refresh_at": at(7),
                "password_due": at(500),
                "last_error": None,
            }
        ],
        "leases": [
            {
                "container": "0123456789abcdef",
                "accounts": [account, "svc-reporting01"],
                "ticket_start": ticket["start"],
                "ticket_end": ticket["end"],
                "created": at(-30),
            }
        ],
    }


def shown(state: dict[str, Any], columns: int) -> list[str]:
    """Return the lines of a terminal that is so wide."""
    console = Console(
        width=columns, force_terminal=True, color_system=None, file=StringIO(), legacy_windows=False
    )
    console.print(status._tables(state, [], boxes=True))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


@settings(deadline=None, max_examples=25)
@given(
    columns=st.integers(20, 200),
    domain=st.from_regex(r"[a-z]{1,15}(\.[a-z]{1,15}){1,3}", fullmatch=True),
    account=st.from_regex(r"[a-z][a-z0-9]{0,14}", fullmatch=True),
)
def test_a_terminal_of_any_width_shows_names_whole(columns: int, domain: str, account: str) -> None:
    lines = shown(state_of(domain, account), columns)
    assert max(map(len, lines)) <= columns
    text = "\n".join(lines)
    for name in (domain, f"dc01.{domain}", f"{account}@{domain}", "0123456789ab", "Ticket left"):
        # What is longer than a line is cut, and nothing of it lost.
        assert name in (text if len(name) <= columns else text.replace("\n", "").replace(" ", ""))
    assert "svc-reporting01" in " ".join(text.split()) or columns < 30


def test_a_narrow_terminal_gets_lines_and_a_wide_one_columns() -> None:
    state = state_of("corp.contoso.example", "webapp01")
    narrow, wide = shown(state, 40), shown(state, 140)
    assert "webapp01@corp.contoso.example" in narrow
    assert "  Ticket left     9 h 00 min" in narrow
    assert not any("│" in line or "━" in line for line in narrow)
    assert any("webapp01@corp.contoso.example" in line and "│" in line for line in wide)


def test_a_pipe_gets_a_line_for_each_lease(capsys: pytest.CaptureFixture[str]) -> None:
    status._console().print(
        status._tables(state_of("corp.contoso.example", "webapp01"), [], boxes=False)
    )
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    (lease,) = [line for line in lines if "0123456789ab" in line[0]]
    assert "webapp01, svc-reporting01" in lease
