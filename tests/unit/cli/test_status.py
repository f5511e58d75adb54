"""What ``credspec status`` shows of an agent's answers."""

from __future__ import annotations

from typing import Any

import pytest

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
