"""SIGHUP: a good configuration's policy counts from then on, a wrong one changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from credspec.agent import configuration_reload
from credspec.agent.audit import AuditLog
from credspec.agent.configuration_reload import ConfigurationReload, changes_that_need_a_restart
from credspec.agent.identities.identities import Identities
from credspec.agent.leases.journal import Journal
from credspec.agent.leases.leases import Leases
from credspec.config.host import Config, load_config
from credspec.config.policy import Policy
from credspec.errors import NotPermittedError
from credspec.providers.account_domains import AccountDomains
from credspec.providers.provider import HostSource, PluginSource
from credspec.providers.selection import Providers
from credspec.providers.settings import ProviderSettings
from credspec.service import events
from credspec.service.events import Event
from credspec.spec.host_account_plugins import CREDSPEC_PLUGIN_GUID

Emitted = list[tuple[Event, dict[str, Any]]]


@pytest.fixture
def emitted(monkeypatch: pytest.MonkeyPatch) -> Emitted:
    seen: Emitted = []
    monkeypatch.setattr(
        configuration_reload, "emit", lambda event, **fields: seen.append((event, fields))
    )
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


def make(
    path: Path, load: Callable[[], Config] | None = None, **more: Any
) -> tuple[ConfigurationReload, Leases]:
    config = load_config(path)
    of_host = leases(path.parent, config.policy)
    return ConfigurationReload(
        load or (lambda: load_config(path)), config, of_host, **more
    ), of_host


class SimulatedIdentities:
    """Notes what it is asked to forget."""

    def __init__(self) -> None:
        self.concerned: list[Callable[[HostSource | None], bool]] = []

    async def forget_logons(self, concerned: Callable[[HostSource | None], bool]) -> None:
        self.concerned.append(concerned)


def file_source(name: str = "reader") -> PluginSource:
    return PluginSource(CREDSPEC_PLUGIN_GUID, f"file:{name}", "a.test")


async def test_a_good_configuration(path: Path, emitted: Emitted) -> None:
    reload, of_host = make(path)
    write(path, '[policy]\naccounts = ["WebApp02"]\nusers = ["nobody"]\n')
    assert await reload.reload()
    assert of_host.policy.policy.accounts == ("WebApp02",)
    assert len(of_host.policy.policy.uids) == 1
    assert emitted == [(Event.POLICY_RELOADED, {"leases_ended": 0, "needs_restart": []})]


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
    path: Path, emitted: Emitted, text: str | None, words: str
) -> None:
    reload, of_host = make(path)
    before = of_host.policy.policy
    write(path, text)
    assert not await reload.reload()
    assert of_host.policy.policy is before
    ((event, fields),) = emitted
    assert event is Event.POLICY_NOT_RELOADED
    assert words in fields["error"]


async def test_names_that_are_not_answered_in_time(
    path: Path, emitted: Emitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configuration_reload, "_LOAD_SECONDS", 0.01)
    answered = asyncio.Event()
    loop = asyncio.get_running_loop()

    def waits() -> Config:
        asyncio.run_coroutine_threadsafe(answered.wait(), loop).result()
        return Config()

    reload, of_host = make(path, waits)
    assert not await reload.reload()
    assert of_host.policy.policy.accounts == ("WebApp01",)
    assert emitted[0][0] is Event.POLICY_NOT_RELOADED
    answered.set()


async def test_a_defect_leaves_the_old_policy(path: Path, emitted: Emitted) -> None:
    reload, of_host = make(path, lambda: 1 // 0)  # type: ignore[arg-type, return-value]
    assert not await reload.reload()
    assert of_host.policy.policy.accounts == ("WebApp01",)
    assert emitted[0][1] == {"error": "ZeroDivisionError"}


async def test_it_is_done_when_asked_and_each_time(path: Path, emitted: Emitted) -> None:
    reload, of_host = make(path)
    task = asyncio.create_task(reload.run())
    for accounts in ("one", "two"):
        write(path, f'[policy]\naccounts = ["{accounts}"]\n')
        reload.ask()
        reload.ask()
        while of_host.policy.policy.accounts != (accounts,):
            await asyncio.sleep(0.001)
    assert {event for event, _ in emitted} == {Event.POLICY_RELOADED}
    task.cancel()


def test_what_takes_a_restart_is_named(path: Path) -> None:
    before = load_config(path)
    path.write_text(
        'log_format = "json"\n[policy]\naccounts = []\n[providers]\nenabled = ["file"]\n'
        '[credentials_fetcher]\nusers = ["nobody"]\n'
    )
    after = load_config(path)
    assert changes_that_need_a_restart(before, after) == []
    assert changes_that_need_a_restart(before, before) == []
    path.write_text('[credentials_fetcher]\nmode = "0640"\n')
    assert changes_that_need_a_restart(before, load_config(path)) == ["credentials_fetcher"]
    path.write_text(
        'run_directory = "/run/x"\n[host_identity]\nprincipal = "A$"\n[ldap]\nca_file = "/x"\n'
        '[domains."a.test"]\nsite = "x"\n[account_provider]\nlisten = "x"\n'
        '[credentials_fetcher]\nowner = "1:1"\nusers = ["nobody"]\n'
    )
    assert sorted(changes_that_need_a_restart(before, load_config(path))) == [
        *("account_provider", "ca_file", "credentials_fetcher", "domains"),
        *("principal", "run_directory"),
    ]
    assert after.policy.grpc_uids == after.fetcher.uids != frozenset()


async def test_providers_are_taken_over_and_what_they_gave_is_forgotten(
    path: Path, emitted: Emitted
) -> None:
    providers, identities = Providers(), SimulatedIdentities()
    reload, _ = make(path, providers=providers, identities=identities)
    with pytest.raises(NotPermittedError, match="host-account-not-enabled"):
        providers.check(file_source())
    enabled = '[providers]\nenabled = ["file"]\n'
    write(path, enabled)
    assert await reload.reload()
    providers.check(file_source())
    # A reload that changes nothing of them forgets nothing.
    assert await reload.reload()
    assert [fields.get("providers_changed") for _, fields in emitted] == [["file"], None]
    assert len(identities.concerned) == 1
    write(path, enabled + '[providers.file]\ndirectory = "/srv/accounts"\n')
    assert await reload.reload()
    concerned = identities.concerned[-1]
    assert concerned(file_source())
    assert not concerned(None)
    write(path, "")
    assert await reload.reload()
    with pytest.raises(NotPermittedError, match="host-account-not-enabled"):
        providers.check_held(file_source())


@pytest.mark.parametrize(
    ("table", "code"),
    [
        ('[providers.file]\ndirectory = "relative"\n', "config-wrong-value"),
        ('[providers.file]\ndirectorie = "/x"\n', "config-unknown-key"),
        ('[providers.vault]\nurl = "ftp://x"\n', "config-wrong-value"),
    ],
)
async def test_a_broken_table_of_a_provider_keeps_the_old_providers(
    path: Path, emitted: Emitted, table: str, code: str
) -> None:
    enabled = '[policy]\naccounts = ["WebApp01"]\n[providers]\nenabled = ["file", "vault"]\n'
    write(path, enabled)
    providers = Providers(load_config(path).providers)
    reload, of_host = make(path, providers=providers)
    before = providers.settings
    write(path, enabled.replace("WebApp01", "WebApp02") + table)
    assert not await reload.reload()
    assert providers.settings is before
    assert of_host.policy.policy.accounts == ("WebApp01",)
    ((event, fields),) = emitted
    assert event is Event.POLICY_NOT_RELOADED
    assert code in fields["error"]
    assert reload.failure == fields["error"]
    # The table of a provider that was broken at the start holds nobody up.
    write(path, enabled)
    assert await reload.reload()
    assert reload.failure is None


def logged(capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    events.emit(Event.AGENT_STOPPED)
    return capsys.readouterr().err


async def test_the_format_of_the_log_is_taken_over(
    path: Path, emitted: Emitted, capsys: pytest.CaptureFixture[str]
) -> None:
    reload, _ = make(path)
    try:
        for log_format in ("json", "text"):
            write(path, f'log_format = "{log_format}"\n')
            assert await reload.reload()
            assert logged(capsys).startswith("{") == (log_format == "json")
        write(path, 'log_format = "json"\n[policy]\nusers = 1\n')
        assert not await reload.reload()
        assert not logged(capsys).startswith("{")
    finally:
        events.set_log_format("text")


def test_which_sources_a_change_of_providers_concerns() -> None:
    settings: dict[str, Any] = {"enabled": ("file", "vault"), "tables": {"file": {}}}
    default = PluginSource(CREDSPEC_PLUGIN_GUID, "vault:x")
    changes: tuple[tuple[dict[str, Any], tuple[bool, ...]], ...] = (
        ({"tables": {"file": {"directory": "/x"}}}, (True, False, False)),
        ({"enabled": ("vault",)}, (True, False, False)),
        ({"secret_seconds": 1.0}, (True, True, True)),
        ({"deadline_seconds": 1.0}, (True, True, True)),
        ({"domains": AccountDomains({"A": "a.test"})}, (True, True, True)),
        ({}, (False, False, False)),
    )
    for change, concerned in changes:
        providers = Providers(ProviderSettings(**settings), default=default)
        after = ProviderSettings(**(settings | change))
        found = providers.replace(providers.replacement(after))
        assert tuple(map(found, (file_source(), default, None))) == concerned
