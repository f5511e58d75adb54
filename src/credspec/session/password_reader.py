"""Managed passwords as the domain gives them, of which the process keeps no second copy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from credspec.directory.accounts import (
    GroupManagedServiceAccount,
    PasswordNotPermittedError,
    find_account,
    read_key_version,
    read_managed_password,
)
from credspec.directory.connection import Connection
from credspec.directory.domain import DomainFacts
from credspec.directory.managed_password import ManagedPassword
from credspec.errors import CredspecError, NotPermittedError
from credspec.session.domain_connection import DomainConnection
from credspec.session.keytab_principal import with_guess

_T = TypeVar("_T")
_KEY_VERSION_ATTEMPTS: Final = 3


class PasswordReader:
    """Reads managed passwords of a domain."""

    def __init__(self, connection: DomainConnection) -> None:
        self._connection = connection
        self._at_work_lock = threading.Lock()
        self._at_work = 0

    def read(self, account: str) -> tuple[GroupManagedServiceAccount, str, ManagedPassword]:
        """Return an account, its realm and its password; to be called within `overwriting`.

        Raises:
            CredspecError: of the class and code of the step that failed.
        """

        def read(
            connection: Connection, facts: DomainFacts
        ) -> tuple[GroupManagedServiceAccount, str, ManagedPassword]:
            entry, password = self._read(connection, facts, account)
            return entry, facts.realm, password

        return self._permitted(read)

    def read_with_version(
        self, account: str
    ) -> tuple[GroupManagedServiceAccount, str, ManagedPassword, int]:
        """Return the same and the password's version; raises as `read`."""
        return self._permitted(
            lambda connection, facts: self._read_with_version(connection, facts, account)
        )

    @contextmanager
    def overwriting(self) -> Iterator[None]:
        """Overwrite what libraries keep of the last password read, once nobody is at work on one.

        Each answer takes the place of the one before, so there is never more than one.
        """
        with self._at_work_lock:
            self._at_work += 1
        try:
            yield
        finally:
            with self._at_work_lock:
                self._at_work -= 1
                is_last = self._at_work == 0
            if is_last:
                self._connection.overwrite_now()

    def _read_with_version(
        self, connection: Connection, facts: DomainFacts, account: str
    ) -> tuple[GroupManagedServiceAccount, str, ManagedPassword, int]:
        version = read_key_version(connection, find_account(connection, facts, account))
        for _ in range(_KEY_VERSION_ATTEMPTS):
            entry, password = self._read(connection, facts, account)
            # A rollover in between would give the old keys the new number.
            before, version = version, read_key_version(connection, entry)
            if before == version:
                return entry, facts.realm, password, version
        raise CredspecError.of(
            "key-version-unstable",
            "msDS-KeyVersionNumber is another one at each look",
            where=f"account {account}",
            remedy="the domain controller keeps changing the password: look at its log",
        )

    def _read(
        self, connection: Connection, facts: DomainFacts, account: str
    ) -> tuple[GroupManagedServiceAccount, ManagedPassword]:
        self._connection.overwrite_first()
        started = time.monotonic()
        found = read_managed_password(connection, facts, account, reader=self._connection.reader)
        self._connection.latency = time.monotonic() - started
        if self._at_work == 1:
            # The domain answers while the key is derived.
            self._connection.overwrite_later(connection)
        return found

    def _permitted(self, read: Callable[[Connection, DomainFacts], _T]) -> _T:
        """Read a password, if need be with a new logon of the host."""
        try:
            return self._connection.use(read)
        except NotPermittedError as error:
            is_of_logon = isinstance(error, PasswordNotPermittedError)
            if not is_of_logon or not self._connection.was_logged_on_long_ago():
                raise with_guess(error, self._connection.guess) from None
            # A group membership made after the host's logon counts only with a new ticket.
            self._connection.forget_logon()
            try:
                return self._connection.use(read)
            except NotPermittedError as again:
                raise with_guess(again, self._connection.guess) from None
