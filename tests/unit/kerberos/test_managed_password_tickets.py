"""Which keys of a managed password are tried, over a KDC that is simulated: it takes one key."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from credspec.directory.managed_password import PASSWORD_BYTES, ManagedPassword
from credspec.errors import NotPermittedError
from credspec.kerberos import tickets
from credspec.kerberos.keys import Key, computer_salt, derive_keys
from credspec.kerberos.tickets import Ticket, ticket_from_managed_password

REALM, NAME = "X.TEST", "After$"
COMPUTED = computer_salt(REALM, NAME)
FORMER = computer_salt(REALM, "Before$")
ONE, TWO, WRONG = (bytes([n, 0]) * (PASSWORD_BYTES // 2) for n in (65, 66, 67))
LONG = timedelta(hours=9)


class SimulatedKdc:
    """Takes keys of one password and one salt, of some encryption types."""

    def __init__(self, password: bytes, salt: str, enctypes: Iterable[int]) -> None:
        self.keys = {key for key in derive_keys(password, salt) if key.enctype in set(enctypes)}
        self.salt = salt
        self.refused: list[Key] = []
        self.salts_told = 0

    def ticket(self, principal: str, keys: Iterable[Key], **options: Any) -> Ticket:
        given = list(keys)
        assert options["forwardable"]
        fitting = [k for k in given if k.enctype in {each.enctype for each in self.keys}]
        if not fitting:
            raise NotPermittedError.of("kdc-enctype-unsupported", "simulated")
        # The strongest that both have.
        if fitting[0] not in self.keys:
            self.refused.append(fitting[0])
            raise NotPermittedError.of("kdc-key-refused", "simulated")
        now = datetime.now(UTC)
        return Ticket(principal, now, now + LONG, fitting[0].enctype, b"cache")

    def salt_of(self, _: str) -> str:
        self.salts_told += 1
        return self.salt


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    in_force=st.sampled_from([ONE, TWO]),
    salt=st.sampled_from([COMPUTED, FORMER]),
    known=st.sampled_from([None, COMPUTED, FORMER]),
    enctypes=st.sets(st.sampled_from([17, 18, 23]), min_size=1),
    near=st.booleans(),
)
def test_the_key_that_a_simulated_kdc_takes_is_found(
    monkeypatch: pytest.MonkeyPatch,
    in_force: bytes,
    salt: str,
    known: str | None,
    enctypes: set[int],
    *,
    near: bool,
) -> None:
    kdc = SimulatedKdc(in_force, salt, enctypes)
    monkeypatch.setattr(tickets, "ticket_from_keys", kdc.ticket)
    monkeypatch.setattr(tickets, "salt_of_kdc", kdc.salt_of)
    query = timedelta(minutes=1) if near else LONG
    password = ManagedPassword(ONE, TWO, query, LONG)
    found = ticket_from_managed_password(NAME, REALM, password, known)
    assert found.principal == f"{NAME}@{REALM}"
    assert len(set(kdc.refused)) == len(kdc.refused) <= 2, "each could count towards a lockout"
    expected = TWO if near else ONE
    if 18 in enctypes and in_force == expected and salt == (known or COMPUTED):
        assert (kdc.refused, kdc.salts_told) == ([], 0), "one round trip"
    if enctypes & {17, 18} and kdc.refused == []:
        assert found.salt == salt


def test_wrong_passwords_are_not_blamed_on_a_keytab(monkeypatch: pytest.MonkeyPatch) -> None:
    kdc = SimulatedKdc(WRONG, COMPUTED, [17, 18, 23])
    monkeypatch.setattr(tickets, "ticket_from_keys", kdc.ticket)
    monkeypatch.setattr(tickets, "salt_of_kdc", kdc.salt_of)
    with pytest.raises(NotPermittedError, match="kdc-key-refused") as caught:
        ticket_from_managed_password(NAME, REALM, ManagedPassword(ONE, TWO, LONG, LONG))
    assert "keytab" not in str(caught.value)
    assert "replicated" in str(caught.value)
    assert len(kdc.refused) == len(set(kdc.refused))
