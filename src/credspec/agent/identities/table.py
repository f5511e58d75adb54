"""The identities that are held or being acquired now."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from credspec.agent.identities.identity import Identity, IdentityName, SessionKey


class IdentityTable:
    """`held` and `acquiring` by name; `keytab_holders` are the holders that want a keytab, too."""

    def __init__(self) -> None:
        self.held: dict[IdentityName, Identity] = {}
        self.acquiring: dict[IdentityName, asyncio.Task[None]] = {}
        self.keytab_holders: defaultdict[IdentityName, set[str]] = defaultdict(set)

    def sessions_in_use(self) -> list[SessionKey]:
        """Return the sessions whose identities are held."""
        return list(dict.fromkeys(name.session for name in self.held))

    def sessions_wanted(self) -> set[SessionKey]:
        """Return the sessions whose identities are held or being acquired."""
        return {name.session for name in (*self.held, *self.acquiring)}

    def let_go_of_keytab(self, name: IdentityName, holder: str) -> None:
        """Drop the keytab of an identity with the last holder who wants one."""
        holders = self.keytab_holders.get(name)
        if holders is None:
            return
        holders.discard(holder)
        if not holders:
            del self.keytab_holders[name]
            if name in self.held:
                self.held[name].keytab = self.held[name].keytab_due = None
