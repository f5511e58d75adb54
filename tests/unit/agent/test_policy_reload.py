"""SIGHUP: a good configuration's policy counts from then on, a wrong one changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from credspec.agent import policy_reload
from credspec.agent.audit import AuditLog
from credspec.agent.identities.identities import Identities
from credspec.agent.leases.journal import Journal
from credspec.agent.leases.leases import Leases
from credspec.agent.policy_reload import PolicyReload, changed_beside_policy
from credspec.config.host import Config, load_config
from credspec.config.policy import Policy
from credspec.service.events import Event

Told = list[tuple[Event, dict[str, Any]]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    seen: Told = []
    monkeypatch.setattr(policy_reload, "emit", lambda event, **fields: seen.append((event, fields)))
    return seen


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "config.toml"
    found.write_text('[policy]\naccounts = ["WebApp01"]\n')
    return found


def write(path: Path, text: str | None) -> None:
    if text is None:
        path.unlink()
    else:
        path.write_text(text)


def leases(tmp_path: Path, policy: Policy) -> Leases:
    async def renewed(_: object) -> None:
        raise AssertionError("nothing is held")

    return Leases(
        Identities(lambda *_: pytest.fail("nobody is asked"), renewed),
        Journal(tmp_path),
        leases_directory=tmp_path,
        spec_directory=tmp_path,
        audit=AuditLog(tmp_path / "audit.jsonl"),
        policy=policy,
    )


def make(path: Path, load: Callable[[], Config] | None = None) -> tuple[PolicyReload, Leases]:
    config = load_config(path)
    of_host = leases(path.parent, config.policy)
    return PolicyReload(load or (lambda: load_config(path)), config, of_host), of_host


async def test_a_good_configuration(path: Path, told: Told) -> None:
    reload, of_host = make(path)
    write(path, '[policy]\naccounts = ["WebApp02"]\nusers = ["nobody"]\n')
    assert await reload.reload()
    assert of_host.policy.policy.accounts == ("WebApp02",)
    assert len(of_host.policy.policy.uids) == 1
    assert told == [(Event.POLICY_RELOADED, {"leases_ended": 0, "needs_restart": []})]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[policy", "config-not-toml"),
        ('[policy]\nacounts = ["a"]\n', "config-unknown-key"),
        ('[policy]\nusers = ["no-such-user-here"]\n', "config-wrong-value"),
        ('[policy]\naccounts = []\n[ldap]\ntransport = "udp"\n', "config-wrong-value"),
        (None, "config-unreadable"),
    ],
)
async def test_a_wrong_configuration_leaves_the_old_policy(
    path: Path, told: Told, text: str | None, words: str
) -> None:
    reload, of_host = make(path)
    before = of_host.policy.policy
    write(path, text)
    assert not await reload.reload()
    assert of_host.policy.policy is before
    ((event, fields),) = told
    assert event is Event.POLICY_NOT_RELOADED
    assert words in fields["error"]


async def test_names_that_are_not_answered_in_time(
    path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_reload, "_LOAD_SECONDS", 0.01)
    answered = asyncio.Event()
    loop = asyncio.get_running_loop()

    def waits() -> Config:
        asyncio.run_coroutine_threadsafe(answered.wait(), loop).result()
        return Config()

    reload, of_host = make(path, waits)
    assert not await reload.reload()
    assert of_host.policy.policy.accounts == ("WebApp01",)
    assert told[0][0] is Event.POLICY_NOT_RELOADED
    answered.set()


async def test_a_defect_leaves_the_old_policy(path: Path, told: Told) -> None:
    reload, of_host = make(path, lambda: 1 // 0)  # type: ignore[arg-type, return-value]
    assert not await reload.reload()
    assert of_host.policy.policy.accounts == ("WebApp01",)
    assert told[0][1] == {"error": "ZeroDivisionError"}


async def test_it_is_done_when_asked_and_each_time(path: Path, told: Told) -> None:
    reload, of_host = make(path)
    task = asyncio.create_task(reload.run())
    for accounts in ("one", "two"):
        write(path, f'[policy]\naccounts = ["{accounts}"]\n')
        reload.ask()
        reload.ask()
        while of_host.policy.policy.accounts != (accounts,):
            await asyncio.sleep(0.001)
    assert {event for event, _ in told} == {Event.POLICY_RELOADED}
    task.cancel()


def test_what_takes_a_restart_is_named(path: Path) -> None:
    before = load_config(path)
    path.write_text(
        'log_format = "json"\n[policy]\naccounts = []\n[providers]\nenabled = ["file"]\n'
        '[credentials_fetcher]\nusers = ["nobody"]\n'
    )
    after = load_config(path)
    assert changed_beside_policy(before, after) == ["log_format", "providers"]
    assert changed_beside_policy(before, before) == []
    path.write_text('[credentials_fetcher]\nmode = "0640"\n')
    assert changed_beside_policy(before, load_config(path)) == ["credentials_fetcher"]
    assert after.policy.grpc_uids == after.fetcher.uids != frozenset()
