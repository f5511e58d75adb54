"""Which provider a spec's plug-in is, whether this host allows it, and what it said."""

from __future__ import annotations

import importlib
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, cast

from credspec.errors import (
    CredspecError,
    NotPermittedError,
    UnreachableError,
    UsageError,
    internal_error,
)
from credspec.providers.program import ProgramProvider
from credspec.providers.provider import (
    GivenAccount,
    HostAccount,
    HostSource,
    PluginSource,
    Provider,
    checked_account,
)
from credspec.providers.question_limits import QuestionLimits
from credspec.providers.settings import ProviderSettings
from credspec.spec.document import CredentialSpec
from credspec.spec.host_account_plugins import CREDSPEC_PLUGIN_GUID, PLUGINS
from credspec.spec.validation import MAX_PLUGIN_INPUT, input_text, is_plugin_input

ENTRY_POINTS: Final = "credspec.providers"
"""The group of entry points by which other packages add providers."""

INLINE: Final = "inline"
"""The name under which `enabled` allows accounts in specs."""

_BUILT_IN: Final[Mapping[str, str]] = {
    "file": "credspec.providers.local_files:FileProvider",
    "keytab": "credspec.providers.local_files:KeytabProvider",
    "systemd": "credspec.providers.local_files:SystemdCredentialProvider",
    "kubernetes": "credspec.providers.kubernetes:KubernetesProvider",
    "rancher": "credspec.providers.rancher:RancherProvider",
    "vault": "credspec.providers.vault:VaultProvider",
    "aws": "credspec.providers.aws:AwsProvider",
    "azure-key-vault": "credspec.providers.azure_key_vault:AzureKeyVaultProvider",
}
"""Module and class of the built-in providers, imported only when used."""

# Not every published one is hexadecimal.
_GUID: Final = re.compile(r"\{[0-9A-Za-z]{8}(?:-[0-9A-Za-z]{4}){3}-[0-9A-Za-z]{12}\}")
_PREFIXED: Final = re.compile(r"([a-z][a-z0-9-]{0,31}):(.+)")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_INLINE_PARTS: Final = 3
_WHERE: Final = "HostAccountConfig"


def declared_by_providers() -> list[type]:
    """Return what declares the tables of the built-in providers, of those that have keys."""
    found = [getattr(_loaded(name), "declared", None) for name in _BUILT_IN]
    return [declared for declared in found if declared is not None]


def plugin_source(spec: CredentialSpec) -> PluginSource | None:
    """Return where a spec says that the host's account comes from; None if it says nothing."""
    config = spec.active_directory_config.host_account_config
    if config is None or (not config.plugin_guid and not config.plugin_input):
        return None
    given = "" if config.plugin_input is None else config.plugin_input
    guid = (config.plugin_guid or "").strip("{}")
    return PluginSource(f"{{{guid}}}", input_text(given), spec.domain)


@dataclass(frozen=True, slots=True)
class ProviderReplacement:
    """Other settings, checked: `changed` are the names of the providers that they change.

    `made` are the providers that stay as they are, and those that were made to check their tables.
    """

    settings: ProviderSettings
    changed: frozenset[str]
    made: Mapping[str, Provider] = field(repr=False)


class Providers:
    """The providers of this host; safe to use from several threads.

    `default` is what leases log on with whose specs name no provider, None for the machine keytab.
    """

    def __init__(
        self, settings: ProviderSettings | None = None, *, default: HostSource | None = None
    ) -> None:
        self.settings = settings or ProviderSettings()
        self._default = default
        self._lock = threading.Lock()
        self._made: dict[str, Provider] = {}
        self._making: dict[str, threading.Lock] = {}
        self._limits = QuestionLimits()

    def check(self, source: HostSource) -> None:
        """Refuse a source that cannot be used on this host, without asking anybody.

        Raises:
            UsageError: `host-account-guid`, `host-account-input`.
            NotPermittedError: `host-account-plugin-unknown`, `host-account-not-enabled`,
                `host-account-inline`, `host-account-other-domain`.
            CredspecError: `host-account-invalid`.
        """
        if isinstance(source, GivenAccount):
            self._checked(source.account, source)
        elif isinstance(source, PluginSource):
            name, given = _choose(source, self.settings)
            if name == INLINE:
                self._checked(_inline(given), source)

    def check_held(self, source: HostSource | None) -> None:
        """Refuse the source of a lease that is held, if it cannot be used any more.

        None is what specs without a provider log on with. Raises as `check`.
        """
        held = source or self._default
        if held is None:
            return
        self.check(held)
        if isinstance(held, PluginSource) and held.home:
            self.settings.domains.check_home(held.home, str(held))

    def replacement(self, settings: ProviderSettings) -> ProviderReplacement:
        """Check other settings and return what `replace` puts in force; may block.

        The tables of providers that were changed or enabled are read now.

        Raises:
            UsageError: `config-wrong-value`, `config-unknown-key`, `host-account-provider-missing`.
        """
        with self._lock:
            before, made = self.settings, dict(self._made)
        own = _changed_tables(before, settings)
        changed = own
        if _without_tables(before) != _without_tables(settings):
            changed = frozenset({*own, *before.enabled, *settings.enabled})
        kept = {name: provider for name, provider in made.items() if name not in changed}
        for name in sorted(own & {*settings.enabled} - {INLINE}):
            kept[name] = _made(name, settings)
        return ProviderReplacement(settings, changed, kept)

    def replace(self, replacement: ProviderReplacement) -> Callable[[HostSource | None], bool]:
        """Put other settings in force; return what says whether they concern a source.

        A question that is under way is answered by the provider as it was.
        """
        with self._lock:
            before = self.settings
            self.settings = replacement.settings
            self._made, self._making = dict(replacement.made), {}

        def concerns(source: HostSource | None) -> bool:
            held = source or self._default
            if isinstance(held, GivenAccount):
                return before.domains != replacement.settings.domains
            if not isinstance(held, PluginSource):
                return False
            try:
                names = {_choose(held, of)[0] for of in (before, replacement.settings)}
            except CredspecError:
                return True
            return len(names) > 1 or not names.isdisjoint(replacement.changed)

        return concerns

    def holds_secret(self, source: PluginSource) -> bool:
        """Return whether a source's input may be a secret, which is never written down."""
        name, _ = _choose(source, self.settings)
        return name not in _BUILT_IN

    def account(self, source: HostSource) -> HostAccount:
        """Return the account; blocks for at most `deadline_seconds`.

        One with a password is of the source's `home`, if that is known; of one with a keytab, the
        keytab says what it is.

        Raises:
            CredspecError: `host-account-forgotten`, `host-account-provider`, and what the provider
                says; and as `check`.
            UnreachableError: `host-account-timeout`.
        """
        if isinstance(source, GivenAccount):
            return self._checked(source.revealed(), source)
        if not isinstance(source, PluginSource):
            raise NotPermittedError.of(
                "host-account-forgotten",
                "the host account of this lease went with an earlier run of the agent",
                where=str(source),
                remedy="renew the lease with user and password, or start the container again",
            )
        name, given = _choose(source, self.settings)
        if name == INLINE:
            return self._checked(_inline(given), source)
        account = self._within_deadline(name, given)
        where = f"provider {name}"
        if not isinstance(account, HostAccount):
            raise CredspecError.of("host-account-provider", "it gave no account", where=where)
        if account.keytab is not None:
            return account
        account = checked_account(account.domain, account.user, account.password, where)
        return self._checked(account, source)

    def _checked(self, account: HostAccount, source: HostSource) -> HostAccount:
        """Return an account if its password may go to the source's domain."""
        if source.home:
            self.settings.domains.check(account, source.home, str(source))
        return account

    def _within_deadline(self, name: str, given: str) -> HostAccount:
        where = f"provider {name}"
        results: list[HostAccount | BaseException] = []
        share = self._share_of(name, given)

        def ask() -> None:
            try:
                results.append(self._provider(name).host_account(given))
            except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
                results.append(error)
            finally:
                self._limits.end(name, share)

        self._limits.begin(name, share)
        thread = threading.Thread(target=ask, name=where, daemon=True)
        try:
            thread.start()
        except BaseException:
            self._limits.end(name, share)
            raise
        thread.join(self.settings.deadline_seconds)
        if not results:
            raise UnreachableError.of(
                "host-account-timeout",
                f"no answer within {self.settings.deadline_seconds:g} s",
                where=where,
                remedy="see whether the service behind it answers",
            )
        result = results.pop()
        if not isinstance(result, BaseException):
            return result
        # Its text may hold the provider's input, and so may the frames it came through.
        failure = (
            result.with_problems(result.problems)
            if isinstance(result, CredspecError)
            else internal_error(cast("Exception", result), where)
        )
        del result
        raise failure

    def _share_of(self, name: str, given: str) -> str:
        """Return what of a provider an input needs: such as a namespace, whose server may hang."""
        # Others might hang while they are made; of them nothing is known but the input.
        share_of = getattr(self._provider(name), "share_of", None) if name in _BUILT_IN else None
        return given if share_of is None else str(share_of(given))

    def _provider(self, name: str) -> Provider:
        with self._lock:
            settings, made = self.settings, self._made
            making = self._making.setdefault(name, threading.Lock())
        with making:
            if name not in made:
                made[name] = _made(name, settings)
            return made[name]


def _inline(given: str) -> HostAccount:
    domain, user, password = given.split(":", _INLINE_PARTS - 1)
    return checked_account(domain, user, password, _WHERE)


def _choose(source: PluginSource, settings: ProviderSettings) -> tuple[str, str]:
    """Return the name of the provider and the input it gets."""
    guid, given = source.guid, source.input
    if not _GUID.fullmatch(guid):
        raise UsageError.of(
            "host-account-guid",
            f"{guid[:80]!r} is not a class identifier",
            where=f"{_WHERE}/PluginGUID",
            expected="a class identifier as {8-4-4-4-12}, in braces",
        )
    if not is_plugin_input(given) or _SURROGATE.search(given):
        raise UsageError.of(
            "host-account-input",
            "the input is empty, too long or holds control characters",
            where=f"{_WHERE}/PluginInput",
            expected=f"at most {MAX_PLUGIN_INPUT} printable characters",
        )
    name: str | None
    if guid.lower() == CREDSPEC_PLUGIN_GUID.lower():
        match = _PREFIXED.fullmatch(given)
        if match is None:
            raise UsageError.of(
                "host-account-input",
                "the input names no provider",
                where=f"{_WHERE}/PluginInput",
                expected=PLUGINS["credspec"].input_form,
            )
        name, given = match.groups()
    else:
        name = _by_guid(guid, settings)
    if name is None and given.count(":") >= _INLINE_PARTS - 1:
        if INLINE not in settings.enabled:
            raise NotPermittedError.of(
                "host-account-inline",
                "the spec holds an account itself",
                where=_WHERE,
                remedy="keep it elsewhere (docs/providers.md), or add "
                f'"{INLINE}" to enabled under [providers] in the configuration',
            )
        return INLINE, given
    if name is None:
        raise NotPermittedError.of(
            "host-account-plugin-unknown",
            f"no provider of this host is the plug-in {guid}",
            where=f"{_WHERE}/PluginGUID",
            remedy="name it in a provider's table under [providers] in the configuration",
        )
    if name not in settings.enabled or name == INLINE:
        raise NotPermittedError.of(
            "host-account-not-enabled",
            f"the provider {name} is not enabled on this host",
            where=_WHERE,
            expected=" or ".join(settings.enabled) or "no provider at all",
            remedy=f'add "{name}" to enabled under [providers] in the configuration',
        )
    return name, given


def _by_guid(guid: str, settings: ProviderSettings) -> str | None:
    wanted = guid.lower()
    for name, table in settings.tables.items():
        if str(table.get("guid", "")).lower() == wanted:
            return name
    for name, plugin in PLUGINS.items():
        if plugin.guid.lower() == wanted:
            return name
    return None


def _changed_tables(before: ProviderSettings, after: ProviderSettings) -> frozenset[str]:
    """Return which providers have another table, or are enabled before or after only."""
    names = {*before.tables, *after.tables, *before.enabled, *after.enabled}
    return frozenset(
        name
        for name in names
        if before.tables.get(name) != after.tables.get(name)
        or (name in before.enabled) != (name in after.enabled)
    )


def _without_tables(settings: ProviderSettings) -> ProviderSettings:
    """Return what holds for all providers."""
    return replace(settings, enabled=(), tables={})


def _made(name: str, settings: ProviderSettings) -> Provider:
    table = settings.tables.get(name, {})
    return _factory(name, table)(table, settings.deadline_seconds)


def _loaded(name: str) -> object:
    module, _, attribute = _BUILT_IN[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


_Factory = Callable[[Mapping[str, Any], float], Provider]


def _factory(name: str, settings: Mapping[str, Any]) -> _Factory:
    """Return what makes a provider of its settings and its deadline in seconds."""
    if name in _BUILT_IN:
        return cast("_Factory", _loaded(name))
    if "command" in settings:
        return partial(ProgramProvider, name)
    # Few hosts have one, and it draws in the whole of `email`.
    from importlib.metadata import entry_points

    for entry in entry_points(group=ENTRY_POINTS, name=name):
        return cast("_Factory", entry.load())
    raise UsageError.of(
        "host-account-provider-missing",
        f"there is no provider {name}",
        where="configuration: providers.enabled",
        remedy=f"install the package whose entry point {name} is in the group {ENTRY_POINTS}, "
        f"or give a command under [providers.{name}]",
    )
