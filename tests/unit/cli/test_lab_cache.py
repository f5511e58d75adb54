"""Which labs are made from the cache, and when it is removed."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from credspec.cli import lab as lab_command
from credspec.lab import domain, domain_cache, provisioning, trust


@pytest.fixture(autouse=True)
def simulated_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab_command, "_check_root", lambda: None)


@pytest.mark.parametrize(("options", "use_cache"), [([], True), (["--no-cache"], False)])
@pytest.mark.parametrize("domains", [1, 2])
def test_the_option_counts_for_each_domain(
    monkeypatch: pytest.MonkeyPatch, options: list[str], *, use_cache: bool, domains: int
) -> None:
    seen: list[bool] = []

    def made(*_: Any, use_cache: bool, **__: Any) -> Any:
        seen.append(use_cache)
        return type("Found", (), {"dns_domain": "example.test"})

    monkeypatch.setattr(provisioning, "up", made)
    monkeypatch.setattr(trust, "up_trusted", made)
    done = CliRunner().invoke(lab_command.lab, ["up", f"--domains={domains}", *options])
    assert done.exit_code == 0, done.output
    assert seen == [use_cache] * domains


@pytest.mark.parametrize(("arguments", "cleared"), [(["--all"], 1), (["--name", "x"], 0)])
def test_all_labs_down_is_the_cache_removed(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], cleared: int
) -> None:
    calls: list[None] = []
    monkeypatch.setattr(domain_cache, "clear", lambda: calls.append(None))
    monkeypatch.setattr(domain, "all_labs", lambda: iter(()))
    done = CliRunner().invoke(lab_command.lab, ["down", *arguments])
    assert done.exit_code == 0, done.output
    assert len(calls) == cleared
