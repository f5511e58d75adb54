"""Users whose passwords come with requests: hosts outside the domain log on as one of them.

Each has a credential cache of its own in memory. Passwords are kept in memory for as long as a
lease needs them, and nowhere else: after a restart of the agent they must be given again.
"""

from __future__ import annotations

import hmac
import itertools
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

from credspec.errors import NotPermittedError
from credspec.kerberos.tickets import Ticket, destroy_cache, ticket_from_password

_RENEW_BEFORE_END: Final = timedelta(minutes=30)
_numbers: Final = itertools.count()


class GivenUser:
    """A host identity that is a user with a password; `name` is ``user@domain`` in lower case."""

    def __init__(
        self, name: str, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.name = name
        self.cache: str | None = f"MEMORY:credspec-user-{next(_numbers)}"
        self._password: str | None = None
        self._refused: NotPermittedError | None = None
        self._now = now
        self._lock = threading.Lock()
        self._tickets: dict[str | None, Ticket] = {}

    @property
    def domain(self) -> str:
        """The DNS name of the user's domain."""
        return self.name.rpartition("@")[2]

    def has(self, password: str) -> bool:
        """Return whether this is the password that was given."""
        known = self._password
        return known is not None and hmac.compare_digest(known.encode(), password.encode())

    def take(self, password: str) -> None:
        """Take a password that was given; tickets got with another are dropped."""
        with self._lock:
            if not self.has(password):
                self._password, self._refused = password, None
                self._tickets.clear()

    def log_on(self) -> Ticket:
        """Get a TGT of the user, unless the one at hand still lasts.

        Raises:
            NotPermittedError: `host-password-unknown`, `host-password-refused`; and refusals of the
                KDC.
            UnreachableError: no KDC answered.
        """
        with self._lock:
            return self._get(None)

    def get_service_ticket(self, service: str) -> Ticket:
        """Put a service's ticket into the cache, unless the one at hand still lasts.

        Raises:
            NotPermittedError, UnreachableError: as `log_on`.
        """
        with self._lock:
            try:
                return self._get(service)
            except NotPermittedError as error:
                if error.code.startswith("host-password-"):
                    raise
                # Some KDCs may give it for a TGT alone.
                return self._get(None)

    def forget(self) -> None:
        """Drop the tickets."""
        with self._lock:
            self._tickets.clear()

    def close(self) -> None:
        """Forget the password and the tickets."""
        with self._lock:
            self._password = None
            self._tickets.clear()
            if self.cache is not None:
                destroy_cache(self.cache)

    def _get(self, service: str | None) -> Ticket:
        ticket = self._tickets.get(service)
        if ticket is not None and ticket.end - self._now() >= _RENEW_BEFORE_END:
            return ticket
        if self._refused is not None:
            # Asked again and again, the domain would lock the account.
            raise self._refused
        if self._password is None:
            raise NotPermittedError.of(
                "host-password-unknown",
                "its password came with a request, and is not kept over a restart",
                where=f"user {self.name}",
                remedy="renew the user's leases with the password",
            )
        if ticket is not None:
            # Besides an old ticket of the same service, a new one would not be found.
            self._tickets.clear()
        user, _, domain = self.name.rpartition("@")
        try:
            ticket = ticket_from_password(
                f"{user}@{domain.upper()}",
                self._password,
                into_cache=self.cache or "",
                add=bool(self._tickets),
                service=service,
            )
        except NotPermittedError as error:
            if error.code != "kdc-password-refused":
                raise
            self._refused = NotPermittedError.of(
                "host-password-refused",
                f"the domain refuses the password of {self.name}",
                where=f"user {self.name}",
                remedy="give the current one",
            )
            raise self._refused from None
        self._tickets[service] = ticket
        return ticket


class GivenUsers:
    """The users in use, by their names."""

    def __init__(self) -> None:
        self._users: dict[str, GivenUser] = {}

    def get(self, name: str) -> GivenUser:
        """Return a user; without a password if none was given yet."""
        return self._users.setdefault(name, GivenUser(name))

    def check(self, name: str, password: str) -> None:
        """Take a password, if need be after a logon with it: a wrong one replaces no right one.

        May block on a KDC.

        Raises:
            NotPermittedError, UnreachableError: as `GivenUser.log_on`.
        """
        user = self.get(name)
        if user.has(password):
            return
        trial = GivenUser(name)
        trial.take(password)
        try:
            trial.log_on()
            user.take(password)
        finally:
            with suppress(Exception):
                trial.close()

    def drop(self, name: str) -> None:
        """Forget a user that no lease needs any more."""
        user = self._users.pop(name, None)
        if user is not None:
            user.close()
