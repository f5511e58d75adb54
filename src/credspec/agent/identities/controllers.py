"""Whether the domain controllers in containers' krb5.conf still take connections."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from credspec.agent.identities.domains import Domains
from credspec.agent.identities.identity import Identity, SessionKey
from credspec.agent.identities.open_domain import OpenDomain
from credspec.agent.identities.table import IdentityTable
from credspec.errors import CredspecError

# A held identity is given out with controllers that were there so long ago at most.
_AGE_SECONDS: Final = 5.0
_WAIT_SECONDS: Final = 4.0


class ControllerChecks:
    """Checks controllers, once at a time for a domain; `renewed` tells the leases of others."""

    def __init__(
        self,
        domains: Domains,
        table: IdentityTable,
        renewed: Callable[[Identity], Awaitable[None]],
    ) -> None:
        self._domains = domains
        self._table = table
        self._renewed = renewed

    async def follow(self, key: SessionKey) -> None:
        """Make sure that the domain controllers in containers' krb5.conf are there.

        If one of those named to containers is gone, controllers are located again and all leases
        of the session's identities get the new ones. Does nothing if no controller can be located.
        """
        await asyncio.shield(self._check(self._domains.get(key)))

    async def check_before_use(self, key: SessionKey) -> None:
        """Check the controllers unless that was done just now, but do not wait for it for long."""
        domain = self._domains.get(key)
        age = asyncio.get_running_loop().time() - domain.controllers_checked_at
        if domain.session.controllers and age > _AGE_SECONDS:
            await asyncio.wait([self._check(domain)], timeout=_WAIT_SECONDS)

    def _check(self, domain: OpenDomain) -> asyncio.Task[None]:
        """Return the check under way, else start one."""
        if domain.controllers_check is None or domain.controllers_check.done():
            domain.controllers_check = asyncio.create_task(self._run(domain))
        return domain.controllers_check

    async def _run(self, domain: OpenDomain) -> None:
        try:
            addresses = await domain.run(domain.session.follow_controllers)
        except CredspecError:
            # Containers keep what they have; the schedule reports the outage.
            return
        finally:
            domain.controllers_checked_at = asyncio.get_running_loop().time()
        affected = [
            identity
            for name, identity in self._table.held.items()
            if self._domains.find(name.session) is domain and identity.kdc_addresses != addresses
        ]
        for identity in affected:
            identity.kdc_addresses = addresses
            await self._renewed(identity)
