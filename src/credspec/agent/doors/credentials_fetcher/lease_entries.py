"""The tickets of each lease, as their metadata names them, and which users' leases there are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

from credspec.fetcher_lease_files import TicketEntry

CACHE: Final = "krb5cc"
"""What the file with a ticket is called."""


def directory_of(entry: TicketEntry) -> str:
    """Return the directory of a ticket's file."""
    return entry.file.removesuffix(f"/{CACHE}")


def name_of(entry: TicketEntry) -> str:
    """Return what that directory is called within its lease."""
    return directory_of(entry).rpartition("/")[2]


class LeaseEntries:
    """The leases, each with its tickets in order; a user's are found without looking at others."""

    def __init__(self) -> None:
        self._entries: dict[str, list[TicketEntry]] = {}
        self._by_user: defaultdict[int | None, dict[str, None]] = defaultdict(dict)

    def leases(self) -> list[str]:
        """Return the ids of all leases, sorted."""
        return sorted(self._entries)

    def of(self, lease: str) -> list[TicketEntry]:
        """Return a lease's tickets, none if there is no such lease."""
        return list(self._entries.get(lease, ()))

    def pairs(self, user: int | None = -1) -> list[tuple[str, TicketEntry]]:
        """Return all tickets with their leases, or of the leases that a user has a ticket of."""
        leases: Iterable[str] = self._entries if user == -1 else self._by_user.get(user, ())
        return [(lease, entry) for lease in leases for entry in self._entries.get(lease, ())]

    def directories(self) -> set[str]:
        """Return the directories of all tickets."""
        return {directory_of(entry) for entries in self._entries.values() for entry in entries}

    def put(self, lease: str, entries: Sequence[TicketEntry], users: Iterable[int | None]) -> None:
        """Let a lease have these tickets, some of them of these users."""
        self._entries[lease] = list(entries)
        for user in users:
            self._by_user[user][lease] = None

    def replace(self, lease: str, before: TicketEntry, after: TicketEntry) -> None:
        """Replace one ticket of a lease."""
        entries = self._entries[lease]
        entries[entries.index(before)] = after

    def remove(self, lease: str, entries: Sequence[TicketEntry]) -> None:
        """Remove tickets of a lease, by their files; a lease without any is gone."""
        files = {entry.file for entry in entries}
        left = [entry for entry in self._entries.get(lease, ()) if entry.file not in files]
        if left:
            self._entries[lease] = left
            return
        self._entries.pop(lease, None)
        for user in [user for user, leases in self._by_user.items() if lease in leases]:
            del self._by_user[user][lease]
            if not self._by_user[user]:
                del self._by_user[user]
