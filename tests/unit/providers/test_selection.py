from __future__ import annotations

import gc
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import CellType, FrameType, TracebackType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.errors import CredspecError
from credspec.providers.local_files import FileSettings
from credspec.providers.provider import HostAccount, LostSource, PluginSource
from credspec.providers.provider_table import ProviderTable
from credspec.providers.selection import Providers, declared_by_providers, plugin_source
from credspec.providers.settings import ProviderSettings, provider_settings
from credspec.spec.document import CredentialSpec
from credspec.spec.host_account_plugins import CREDSPEC_PLUGIN_GUID, PLUGINS

OWN = CREDSPEC_PLUGIN_GUID
OTHER = "{12345678-1234-1234-1234-1234567890ab}"
SECRET = "Very-Secret-1!"


def providers(*enabled: str, seconds: float = 10, **tables: Any) -> Providers:
    return Providers(ProviderSettings(enabled=enabled, deadline_seconds=seconds, tables=tables))


@pytest.mark.parametrize(
    "guid",
    [
        "",
        OTHER.strip("{}"),
        "{not-hexadecimal}",
        "{g2345678-1234-1234-1234-1234567890a}",
        OTHER + "\n",
        "{" * 100000,
    ],
)
def test_guids_that_are_none(guid: str) -> None:
    with pytest.raises(CredspecError, match="host-account-guid"):
        providers("inline").check(PluginSource(guid, "x"))


@pytest.mark.parametrize(
    "text", ["", "a\0b", "a\nb", "x" * 64 * 1024, "\x1b[2J", "\ud800", "file:a\x7f"]
)
def test_inputs_that_are_none(text: str) -> None:
    for guid in (OWN, OTHER, PLUGINS["rancher"].guid):
        with pytest.raises(CredspecError, match="host-account-input") as caught:
            providers("file", "inline", "rancher").check(PluginSource(guid, text))
        assert len(str(caught.value)) < 300


def test_what_is_not_enabled_is_refused() -> None:
    for guid, text, code in (
        (OTHER, "x", "host-account-plugin-unknown"),
        (OTHER, f"contoso:reader:{SECRET}", "host-account-inline"),
        (OWN, "file:reader", "host-account-not-enabled"),
        (OWN, f"inline:contoso:reader:{SECRET}", "host-account-not-enabled"),
        (PLUGINS["rancher"].guid.upper(), "ns:secret", "host-account-not-enabled"),
        (OWN, "no prefix", "host-account-input"),
    ):
        with pytest.raises(CredspecError, match=code) as caught:
            providers().check(PluginSource(guid, text))
        assert SECRET not in str(caught.value)
    with pytest.raises(CredspecError, match="host-account-not-enabled"):
        providers("inline").check(PluginSource(OWN, f"inline:contoso:reader:{SECRET}"))


def test_an_account_in_the_spec_where_that_is_allowed() -> None:
    source = PluginSource(OTHER, "contoso:reader:a:b")
    found = providers("inline")
    assert found.account(source) == HostAccount("contoso", "reader", "a:b")
    assert found.holds_secret(source)


def test_what_went_with_an_earlier_run() -> None:
    with pytest.raises(CredspecError, match="host-account-forgotten"):
        providers().account(LostSource("0" * 32))


class Scripted:
    """Stands for a provider of somebody else's."""

    answer: Any = HostAccount("contoso.com", "reader", SECRET)

    def __init__(self, settings: Any, seconds: float) -> None:
        self.settings, self.seconds = settings, seconds

    def host_account(self, plugin_input: str) -> HostAccount:
        if callable(self.answer):
            return self.answer(plugin_input)
        return self.answer


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Scripted]]:
    class EntryPoint:
        def load(self) -> type[Scripted]:
            return Scripted

    def found(*, group: str, name: str) -> list[EntryPoint]:
        assert group == "credspec.providers"
        return [EntryPoint()] if name == "corp" else []

    monkeypatch.setattr("importlib.metadata.entry_points", found)
    before = Scripted.answer
    yield Scripted
    Scripted.answer = before


def test_an_entry_point_is_a_provider_by_name_and_by_guid(scripted: type[Scripted]) -> None:
    found = providers("corp", corp={"guid": OTHER.lower(), "key": "value"})
    for source in (PluginSource(OWN, "corp:x"), PluginSource(OTHER.upper(), "x")):
        assert found.account(source).user == "reader"
        assert found.holds_secret(source)
    assert found._made["corp"].settings["key"] == "value"  # type: ignore[attr-defined]
    with pytest.raises(CredspecError, match="host-account-provider-missing"):
        providers("none").account(PluginSource(OWN, "none:x"))


def test_what_a_strange_provider_says(scripted: type[Scripted]) -> None:
    def broken(_: str) -> HostAccount:
        raise ValueError(SECRET)

    for answer, code in (
        (None, "host-account-provider"),
        (HostAccount("contoso.com", "a/b", SECRET), "host-account-invalid"),
        (HostAccount("contoso.com", "reader", "x" * 10 * 2**20), "host-account-invalid"),
        (broken, "internal-error"),
    ):
        scripted.answer = staticmethod(answer) if callable(answer) else answer
        with pytest.raises(CredspecError, match=code) as caught:
            providers("corp").account(PluginSource(OWN, "corp:x"))
        assert SECRET not in str(caught.value)


def test_a_provider_that_hangs_is_left_alone(scripted: type[Scripted]) -> None:
    go_on = threading.Event()

    def hang(_: str) -> HostAccount:
        go_on.wait(60)
        return HostAccount("contoso.com", "reader", SECRET)

    scripted.answer = staticmethod(hang)
    found = providers("corp", seconds=0.01)
    for _ in range(8):
        with pytest.raises(CredspecError, match="host-account-timeout"):
            found.account(PluginSource(OWN, "corp:x"))
    with pytest.raises(CredspecError, match="host-account-busy"):
        found.account(PluginSource(OWN, "corp:x"))
    go_on.set()


def test_an_input_that_hangs_keeps_no_other_from_its_account(scripted: type[Scripted]) -> None:
    go_on = threading.Event()

    def hang(given: str) -> HostAccount:
        if given == "slow":
            go_on.wait()
        return HostAccount("contoso.com", "reader", SECRET)

    scripted.answer = staticmethod(hang)
    found = providers("corp", seconds=0.01)
    for _ in range(8):
        with pytest.raises(CredspecError, match="host-account-timeout"):
            found.account(PluginSource(OWN, "corp:slow"))
    with pytest.raises(CredspecError, match="host-account-busy"):
        found.account(PluginSource(OWN, "corp:slow"))
    patient = Providers(replace(found.settings, deadline_seconds=200))
    patient._limits, patient._made = found._limits, found._made
    assert patient.account(PluginSource(OWN, "corp:fast")).user == "reader"
    go_on.set()
    while found._limits.waiting():
        time.sleep(0.01)
    assert patient.account(PluginSource(OWN, "corp:slow")).user == "reader"


def test_there_is_an_end_to_what_waits_for_one_provider(scripted: type[Scripted]) -> None:
    go_on = threading.Event()

    def hang(_: str) -> HostAccount:
        go_on.wait()
        return HostAccount("contoso.com", "reader", SECRET)

    scripted.answer = staticmethod(hang)
    found = providers("corp", seconds=0.001)
    codes = Counter()
    for number in range(100):
        with pytest.raises(CredspecError) as caught:
            found.account(PluginSource(OWN, f"corp:{number}"))
        codes[caught.value.code] += 1
    assert codes == {"host-account-timeout": 64, "host-account-busy": 36}
    go_on.set()


def test_a_provider_that_hangs_while_it_is_made_hinders_no_other(
    scripted: type[Scripted], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(scripted, "__init__", lambda *_: go_on.wait())
    (tmp_path / "reader").write_text('{"username": "a", "password": "b", "domainName": "c.test"}')
    (tmp_path / "reader").chmod(0o600)
    found = providers("corp", "file", seconds=0.5, file={"directory": str(tmp_path)})
    with pytest.raises(CredspecError, match="host-account-timeout"):
        found.account(PluginSource(OWN, "corp:x"))
    assert found.account(PluginSource(OWN, "file:reader")).user == "a"
    go_on.set()


def test_no_frame_of_a_providers_error_comes_out(scripted: type[Scripted]) -> None:
    def refuse(given: str) -> HostAccount:
        secret = given * 3
        raise CredspecError.of("host-account-refused", "no", where=str(len(secret)))

    def broken(given: str) -> HostAccount:
        secret = given * 3
        raise ValueError(len(secret))

    for answer in (refuse, broken):
        scripted.answer = staticmethod(answer)
        try:
            providers("corp").account(PluginSource(OWN, "corp:held"))
        except CredspecError as error:
            kept = error
        found = texts_reached_from(kept)
        assert "held" in found
        assert "held" * 3 not in found


def texts_reached_from(error: BaseException) -> set[str]:
    """Return the texts that an error holds on to: by its frames, and by all that they refer to."""
    seen: dict[int, Any] = {}
    pending: list[Any] = [error.__traceback__, error.__context__, error.__cause__]
    kinds = (BaseException, FrameType, TracebackType, dict, list, tuple, str, CellType)
    while pending:
        each = pending.pop()
        if id(each) not in seen and isinstance(each, kinds):
            seen[id(each)] = each
            # Variables of modules are no frame's own.
            is_module = isinstance(each, dict) and "__name__" in each
            pending += [] if is_module else gc.get_referents(each)
            pending += list(each.f_locals.values()) if isinstance(each, FrameType) else []
    return {each for each in seen.values() if isinstance(each, str)}


def spec_with(**config: object) -> CredentialSpec:
    return CredentialSpec.from_json(
        {
            "CmsPlugins": ["ActiveDirectory"],
            "DomainJoinConfig": {"DnsName": "Example.test", "MachineAccountName": "web"},
            "ActiveDirectoryConfig": {
                "GroupManagedServiceAccounts": [{"Name": "web", "Scope": "example.test"}],
                "HostAccountConfig": config,
            },
        }
    )


def test_where_a_spec_says_that_the_host_account_comes_from() -> None:
    """With or without braces, the input as text; without a plug-in it says nothing."""
    for written, text in (("corp:x", "corp:x"), ({"Key": ["a", 1]}, '{"Key":["a",1]}')):
        for guid in (OTHER, OTHER.strip("{}")):
            found = plugin_source(spec_with(PluginGUID=guid, PluginInput=written))
            assert found == PluginSource(OTHER, text, "example.test")
    assert plugin_source(spec_with()) is None
    assert plugin_source(spec_with(PortableCcgVersion="1")) is None


def test_built_in_providers_with_keys_declare_them() -> None:
    """A provider without a table of its own leaves no gap in the page of the configuration."""
    found = declared_by_providers()
    assert FileSettings in found
    assert all(issubclass(declared, ProviderTable) for declared in found)


def test_a_change_makes_the_providers_that_it_concerns_again_and_no_others(
    scripted: type[Scripted], tmp_path: Path
) -> None:
    """What is not used yet is read as well if it changed: a mistake must not come out later."""
    tables = {"corp": {"key": "old"}, "file": {"directory": str(tmp_path)}}
    found = providers("corp", "file", **tables)
    ask = PluginSource(OWN, "corp:x")
    found.account(ask)
    first = found._made["corp"]
    unchanged = found.replacement(ProviderSettings(enabled=("corp", "file"), tables=tables))
    assert (unchanged.changed, dict(unchanged.made)) == (frozenset(), {"corp": first})
    after = ProviderSettings(
        enabled=("corp", "file", "inline"), tables=tables | {"corp": {"key": "new"}}
    )
    replacement = found.replacement(after)
    assert replacement.changed == {"corp", "inline"}
    assert list(replacement.made) == ["corp"]
    concerns = found.replace(replacement)
    assert found._made["corp"].settings["key"] == "new"  # type: ignore[attr-defined]
    assert concerns(ask)
    assert concerns(PluginSource(OTHER, "contoso:reader:x")), "it was refused until now"
    assert not concerns(PluginSource(OWN, "file:reader"))
    assert not concerns(None)
    with pytest.raises(CredspecError, match="host-account-provider-missing"):
        found.replacement(ProviderSettings(enabled=("corp", "none")))


def test_a_program_is_a_provider(tmp_path: Path) -> None:
    found = providers("corp", corp={"command": ["/usr/bin/false"]})
    with pytest.raises(CredspecError, match="host-account-answer"):
        found.account(PluginSource(OWN, "corp:x"))


@given(st.text(max_size=80), st.text(max_size=80))
def test_any_plug_in_is_chosen_or_refused(guid: str, text: str) -> None:
    for name in (guid, OWN, OTHER):
        with suppress(CredspecError):
            providers("file", "inline").check(PluginSource(name, text))


def test_settings() -> None:
    found = provider_settings(
        {"enabled": ["vault"], "secret_seconds": 0, "vault": {"url": "https://v"}}, "config.toml"
    )
    assert isinstance(found, ProviderSettings)
    assert (found.enabled, found.secret_seconds) == (("vault",), 0)
    assert found.tables == {"vault": {"url": "https://v"}}
    assert "https" not in repr(found), "tables may hold what is nobody's business"
    wrong = provider_settings(
        {"enabled": "vault", "secret_seconds": True, "deadline_seconds": 1000, "x": SECRET}, "c"
    )
    assert ProviderSettings().deadline_seconds == 10
    for seconds in ("5", None, [], 0, 26, 1e9, True):
        assert isinstance(provider_settings({"deadline_seconds": seconds}, "c"), list)
    assert isinstance(provider_settings({"deadline_seconds": 25}, "c"), ProviderSettings)
    assert isinstance(wrong, list)
    assert [problem.where for problem in wrong] == [
        f"c: providers.{key}" for key in ("enabled", "secret_seconds", "deadline_seconds", "x")
    ]
    assert SECRET not in str(wrong)
