"""The policy read again while the agent runs: SIGHUP, ``systemctl reload credspec-agent``.

Of the configuration only ``[policy]`` and the users of ``[credentials_fetcher]`` are taken over;
all else takes a restart, and the event says what. A configuration with an error changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Final

from credspec.agent.config import Config
from credspec.agent.events import Event, emit
from credspec.agent.leases import Leases
from credspec.errors import CredspecError

# Names of users may come from a directory that does not answer.
_LOAD_SECONDS: Final = 30.0


class PolicyReload:
    """Reads the configuration when it is asked to, and lets the leases see the new policy.

    `load` returns the configuration as it is now and may block; `config` is the one that the agent
    was started with.
    """

    def __init__(self, load: Callable[[], Config], config: Config, leases: Leases) -> None:
        self._load = load
        self._config = config
        self._leases = leases
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
        """Read the configuration and put its policy in force; return whether that was done."""
        try:
            async with asyncio.timeout(_LOAD_SECONDS):
                config = await asyncio.to_thread(self._load)
        except TimeoutError:
            error = f"no answer within {_LOAD_SECONDS:.0f} s, perhaps to a user's name"
            emit(Event.POLICY_NOT_RELOADED, error=error)
            return False
        except CredspecError as wrong:
            emit(Event.POLICY_NOT_RELOADED, error=str(wrong))
            return False
        except Exception as bug:  # noqa: BLE001 - the valid policy stays in force
            emit(Event.POLICY_NOT_RELOADED, error=type(bug).__name__)
            return False
        self._leases.policy.replace(config.policy)
        ended = await self._leases.enforce_policy()
        needs_restart = changed_beside_policy(self._config, config)
        emit(Event.POLICY_RELOADED, leases_ended=ended, needs_restart=needs_restart)
        return True


def changed_beside_policy(before: Config, after: Config) -> list[str]:
    """Return the names of the configuration's parts that differ and need a restart."""
    same_users = replace(after.fetcher, uids=before.fetcher.uids)
    names = {"fetcher": "credentials_fetcher"}
    return [
        names.get(field.name, field.name)
        for field in fields(Config)
        if field.name != "policy"
        and getattr(before, field.name)
        != (same_users if field.name == "fetcher" else getattr(after, field.name))
    ]
