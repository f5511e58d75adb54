"""The tickets in a host identity's credential cache, and when they are obtained again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Final

from credspec.errors import CredspecError, UnreachableError
from credspec.kerberos.service_ticket import get_service_ticket_by_tgt
from credspec.kerberos.ticket_life import lasts
from credspec.kerberos.tickets import Ticket

_RENEW_BEFORE_END: Final = timedelta(minutes=30)


class NotAtOnceError(Exception):
    """The KDC gives no ticket of a service in an AS exchange, but may give one for a TGT."""


@contextmanager
def first_exchange(service: str | None, *final: type[CredspecError]) -> Iterator[None]:
    """Raise `NotAtOnceError` where the KDC refuses a service's ticket.

    A TGT, `service` None, and the classes `final` are refused as they are; so are outages.
    """
    try:
        yield
    except CredspecError as error:
        if service is None or isinstance(error, (UnreachableError, *final)):
            raise
        raise NotAtOnceError from None


class TicketHolder:
    """A TGT and tickets of services in the credential cache `cache`, until shortly before they end.

    `acquire` gets a ticket with the identity's key and puts it into the cache: that of a service,
    or a TGT for None. A TGT takes the place of all that the cache has; a service's ticket joins it
    if the holder `has_tickets`. It raises `NotAtOnceError` where a TGT may help; see
    `first_exchange`. Not for several threads at a time.
    """

    def __init__(
        self,
        cache: str,
        acquire: Callable[[str | None], Ticket],
        *,
        now: Callable[[], datetime],
    ) -> None:
        self._cache = cache
        self._acquire = acquire
        self._now = now
        self._tgt: Ticket | None = None
        self._of_services: dict[str, Ticket] = {}

    @property
    def has_tgt(self) -> bool:
        """Whether the cache holds a TGT that lasts."""
        return self._tgt is not None and self._lasts(self._tgt)

    @property
    def has_tickets(self) -> bool:
        """Whether the cache holds any ticket, old ones included."""
        return self._tgt is not None or bool(self._of_services)

    def get_tgt(self) -> Ticket:
        """Return the TGT at hand if it lasts, else a new one; raises as `acquire`."""
        if self._tgt is None or not self._lasts(self._tgt):
            tgt = self._acquire(None)
            # They went with the cache's former content.
            self._of_services.clear()
            self._tgt = tgt
        return self._tgt

    def get_service_ticket(self, service: str, domain: str) -> Ticket:
        """Put a service's ticket into the cache, unless the one at hand still lasts.

        In the identity's own `domain` it comes without a TGT; where the KDC refuses that, and in
        other domains, by a TGT, which is returned then. Raises as `acquire`.
        """
        ticket = self._of_services.get(service)
        if ticket is not None and self._lasts(ticket):
            return ticket
        if ticket is not None:
            # Next to an old ticket of the same service, a new one would not be found.
            self.forget()
        if not service.lower().endswith(f".{domain}"):
            return self._get_by_tgt(service)
        try:
            ticket = self._acquire(service)
        except NotAtOnceError:
            # Some KDCs may give it for a TGT only; if the key is wrong, the TGT's refusal says so.
            return self._get_by_tgt(service)
        self._of_services[service] = ticket
        return ticket

    def forget(self) -> None:
        """Forget the tickets; the next one that is acquired takes the place of all in the cache."""
        self._tgt = None
        self._of_services.clear()

    def _get_by_tgt(self, service: str) -> Ticket:
        tgt = self.get_tgt()
        get_service_ticket_by_tgt(self._cache, service)
        return tgt

    def _lasts(self, ticket: Ticket) -> bool:
        return lasts(ticket.start, ticket.end, self._now(), _RENEW_BEFORE_END)
