"""Which leases' containers are gone, found out without holding the event loop up."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Container, Iterable
from functools import partial
from typing import Final, TypeAlias, TypeVar

from credspec.agent import users_state
from credspec.agent.blocking_calls import BlockingCalls
from credspec.agent.container_state import ContainerStates
from credspec.agent.events import Event, emit
from credspec.agent.journal import LeaseRecord
from credspec.agent.lease_directory import LeaseDirectories
from credspec.errors import CredspecError

# A container that is being made has no runtime state yet; after this it must have.
_CREATION_SECONDS: Final = 120.0
_LEASES_AT_A_TIME: Final = 64
_SECONDS: Final = 10.0

_T = TypeVar("_T")

FileUser: TypeAlias = int | None
"""Whose files: an unprivileged user's, or with None the host's own."""


class Liveness:
    """Looks after the containers of leases; `calls` has a thread for each user's files."""

    def __init__(
        self,
        directories: LeaseDirectories,
        calls: BlockingCalls[FileUser],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._directories = directories
        self._calls = calls
        self._states = ContainerStates()

    async def gone(
        self, records: Iterable[LeaseRecord], *, seconds: float = _SECONDS
    ) -> list[LeaseRecord]:
        """Return the records whose containers are gone for certain.

        What does not answer in so many seconds, or cannot be looked at, is not gone.
        """
        by_user: defaultdict[FileUser, list[LeaseRecord]] = defaultdict(list)
        for record in records:
            by_user[record.user].append(record)
        found = await asyncio.gather(
            *(self._gone_of(user, some, seconds) for user, some in by_user.items())
        )
        return [record for some in found for record in some]

    async def forget_all_but(self, records: Iterable[LeaseRecord]) -> None:
        """Forget what was remembered of other containers."""
        states = {record.runtime_state for record in records if record.user is None}
        await self._look(None, partial(self._states.keep, states), _SECONDS)

    async def _gone_of(
        self, user: FileUser, records: list[LeaseRecord], seconds: float
    ) -> list[LeaseRecord]:
        mounted: frozenset[str] | None = frozenset()
        if user is None:
            seconds = max(seconds, _SECONDS)  # they are not where they never answer
            mounted = await self._look(None, self._directories.mounted, seconds)
        gone: list[LeaseRecord] = []
        for first in range(0, len(records), _LEASES_AT_A_TIME):
            some = records[first : first + _LEASES_AT_A_TIME]
            found = None
            if mounted is not None:
                look_at = partial(self._gone_among, some, mounted)
                found = await self._look(user, look_at, seconds)
            if found is None:
                break
            gone += found
        return gone

    async def _look(self, user: FileUser, call: Callable[[], _T], seconds: float) -> _T | None:
        """Call in the thread of a user's files; None if that did not come about."""
        where = "the host's leases" if user is None else f"files of user {user}"
        try:
            return await self._calls.run(user, call, seconds, where)
        except CredspecError as error:
            emit(Event.LEASES_NOT_CHECKED, error=str(error))
        except Exception as error:  # noqa: BLE001 - another time, then
            emit(Event.LEASES_NOT_CHECKED, error=f"{where}: {type(error).__name__}")
        return None

    def _gone_among(self, records: list[LeaseRecord], mounted: Container[str]) -> list[LeaseRecord]:
        gone = []
        for record in records:
            try:
                if not self._is_alive(record, mounted):
                    gone.append(record)
            except OSError:
                pass  # it is unknown now
            except Exception as error:  # noqa: BLE001 - it costs this lease, and no other
                emit(Event.INTERNAL_ERROR, path=record.lease_id, error=type(error).__name__)
                gone.append(record)
        return gone

    def _is_alive(self, record: LeaseRecord, mounted: Container[str]) -> bool:
        """Return whether a lease's container may live; `mounted` are the mounts seen before."""
        is_new = self._is_new(record)
        directory = self._directories.of(
            record.lease_id, record.runtime_state, record.user, record.place
        )
        # The shim mounts before it asks for a lease, and unmounts even if no agent runs.
        is_looked_at = record.user is not None or record.place is not None
        if is_looked_at or record.lease_id not in mounted:
            may_be_there = is_new or is_looked_at
            if not may_be_there or not directory.is_there():
                return False
        if record.runtime_state.endswith(".lock") and record.runtime_state == str(directory.lock):
            return directory.is_locked()
        if is_new or record.place is not None:
            return True
        # What a user's own runtime writes proves nothing to others.
        if record.user is not None:
            return users_state.is_there(record.user, record.runtime_state)
        return self._states.is_there(record.runtime_state)

    def _is_new(self, record: LeaseRecord) -> bool:
        """Return whether a lease's container may still be being made, whatever the clock says."""
        made = record.created_monotonic
        return made is not None and 0 <= self._monotonic() - made < _CREATION_SECONDS
