"""The configuration read again while the agent runs: SIGHUP, ``systemctl reload credspec-agent``.

The policy, the providers, the log format and the users of ``[credentials_fetcher]`` are taken over,
which their `credspec.config_table.Key` says; all else takes a restart, and the event says what. A
configuration with an error changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any, Final

from credspec.agent.identities.identities import Identities
from credspec.agent.leases.leases import Leases
from credspec.config.host import Config
from credspec.config_table import DeclaredKey, Table, keys_of
from credspec.errors import CredspecError
from credspec.providers.selection import ProviderReplacement, Providers
from credspec.service.events import Event, emit, set_log_format

# Names of users may come from a directory that does not answer.
_LOAD_SECONDS: Final = 30.0


class ConfigurationReload:
    """Reads the configuration when it is asked to, and puts in force what needs no restart.

    `load` returns the configuration as it is now and may block; `config` is the one that the agent
    was started with. `failure` says why the last reload changed nothing, None if it did not fail.
    """

    def __init__(
        self,
        load: Callable[[], Config],
        config: Config,
        leases: Leases,
        *,
        providers: Providers | None = None,
        identities: Identities | None = None,
    ) -> None:
        self.failure: str | None = None
        self._load = load
        self._config = config
        self._leases = leases
        self._providers = providers or Providers(config.providers)
        self._identities = identities
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Ask for it, as a signal does; several in a row are one."""
        self._asked.set()

    async def run(self) -> None:
        """Do it whenever it is asked for, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            await self.reload()

    async def reload(self) -> bool:
        """Read the configuration and put it in force; return whether that was done."""
        try:
            async with asyncio.timeout(_LOAD_SECONDS):
                config, replacement = await asyncio.to_thread(self._read)
        except TimeoutError:
            return self._failed(f"no answer within {_LOAD_SECONDS:.0f} s, perhaps to a user's name")
        except CredspecError as wrong:
            return self._failed(str(wrong))
        except Exception as bug:  # noqa: BLE001 - what is valid stays in force
            return self._failed(type(bug).__name__)
        self.failure = None
        set_log_format(config.log_format)
        self._leases.policy.replace(config.policy)
        concerned = self._providers.replace(replacement)
        # First, so that nothing is acquired again for leases that end.
        ended = await self._leases.enforce_policy()
        if replacement.changed and self._identities is not None:
            await self._identities.forget_logons(concerned)
        changed = {"providers_changed": sorted(replacement.changed)} if replacement.changed else {}
        needs_restart = changes_that_need_a_restart(self._config, config)
        emit(Event.POLICY_RELOADED, leases_ended=ended, needs_restart=needs_restart, **changed)
        return True

    def _read(self) -> tuple[Config, ProviderReplacement]:
        config = self._load()
        return config, self._providers.replacement(config.providers)

    def _failed(self, error: str) -> bool:
        self.failure = error
        emit(Event.POLICY_NOT_RELOADED, error=error)
        return False


def changes_that_need_a_restart(before: Config, after: Config) -> list[str]:
    """Return the names of the configuration's parts that differ and need a restart."""
    names = {"fetcher": "credentials_fetcher"}
    return [
        names.get(field.name, field.name)
        for field in fields(Config)
        if list(_needing_restart(before, field.name)) != list(_needing_restart(after, field.name))
    ]


def _needing_restart(config: Config, name: str) -> Iterator[Any]:
    """Yield the values of a field of the configuration, or of its table, that a restart takes."""
    value = getattr(config, name)
    declared = {key.field: key.key for base in type(config).__mro__[:-1] for key in _keys(base)}
    if name in declared:
        if not declared[name].reloaded:
            yield value
    elif isinstance(getattr(value, "table", None), Table):
        for key in _keys(type(value)):
            if not key.key.reloaded:
                yield getattr(value, key.field)
    else:
        yield value


def _keys(declared: type) -> list[DeclaredKey]:
    return list(keys_of(declared).values())
