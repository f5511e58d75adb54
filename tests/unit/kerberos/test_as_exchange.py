"""What the exchange asks libkrb5 for, and what it leaves behind, by a library that is simulated.

Tickets of a real KDC are got in tests/integration/kerberos.
"""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from credspec.kerberos import as_exchange
from credspec.kerberos.as_exchange import ExchangeError, exchange_at_once

# What makes something, and what frees it.
PAIRS = {
    "krb5_init_context": "krb5_free_context",
    "krb5_parse_name": "krb5_free_principal",
    "krb5_kt_resolve": "krb5_kt_close",
    "krb5_get_init_creds_opt_alloc": "krb5_get_init_creds_opt_free",
    "krb5_get_init_creds_keytab": "krb5_free_cred_contents",
    "krb5_cc_resolve": "krb5_cc_close",
}
# Those of which the result tells whether they succeeded.
CHECKED = (
    *("krb5_init_context", "krb5_parse_name", "krb5_kt_resolve", "krb5_get_init_creds_opt_alloc"),
    *("krb5_get_init_creds_opt_set_fast_ccache_name", "krb5_get_init_creds_opt_set_fast_flags"),
    *("krb5_get_init_creds_keytab", "krb5_cc_resolve", "krb5_cc_initialize"),
    "krb5_cc_store_cred",
)


class SimulatedLibrary:
    """Notes the calls; the one named `fails` returns an error, all others success."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            # Lists that libkrb5 would read now are looked at now.
            seen = [list(a) if isinstance(a, ctypes.Array) else a for a in arguments]
            self.calls.append((name, tuple(seen)))
            return -1765328324 if name == self.fails else 0

        return call

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def arguments(self, name: str) -> tuple[Any, ...]:
        (found,) = [arguments for called, arguments in self.calls if called == name]
        return found


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> SimulatedLibrary:
    made = SimulatedLibrary()
    monkeypatch.setattr(as_exchange, "libkrb5", lambda: made)
    return made


def exchange(**options: Any) -> str:
    given: dict[str, Any] = {"enctypes": (18, 17), "service": None} | options
    return exchange_at_once("WebApp01$@X.TEST", "MEMORY:keys", **given)


@pytest.mark.parametrize("fails", ["", *CHECKED])
def test_whatever_fails_is_told_and_all_that_was_made_is_freed_simulated(
    library: SimulatedLibrary, fails: str
) -> None:
    library.fails = fails
    if fails:
        with pytest.raises(ExchangeError) as caught:
            exchange(armor="MEMORY:armour")
        assert caught.value.number == -1765328324
        names = library.names()
        assert fails not in names[names.index(fails) + 1 :]
    else:
        exchange(armor="MEMORY:armour")
    made = [name for name in library.names() if name in PAIRS and name != fails]
    freed = [name for name in library.names() if name in PAIRS.values()]
    assert freed == [PAIRS[name] for name in reversed(made)]
    after = library.names().index(freed[0]) if freed else None
    assert after is None or library.names()[after:] == freed, "nothing is used once it is freed"


def test_the_timestamp_is_sent_at_once_simulated(library: SimulatedLibrary) -> None:
    exchange()
    assert library.arguments("krb5_get_init_creds_opt_set_preauth_list")[1:] == ([2], 1)
    assert library.arguments("krb5_get_init_creds_opt_set_etype_list")[1:] == ([18, 17], 2)
    assert library.arguments("krb5_get_init_creds_opt_set_canonicalize")[1] == 0
    # It is to be good from now on.
    _, _, _, _, start, service, _ = library.arguments("krb5_get_init_creds_keytab")
    assert (start, service) == (0, None)
    assert not any("fast" in name for name in library.names())


def test_in_armour_the_challenge_is_what_takes_its_place_simulated(
    library: SimulatedLibrary,
) -> None:
    exchange(armor="MEMORY:armour", service="host/a@X.TEST")
    assert library.arguments("krb5_get_init_creds_opt_set_preauth_list")[1:] == ([138], 1)
    name = library.arguments("krb5_get_init_creds_opt_set_fast_ccache_name")
    assert name[2] == b"MEMORY:armour"
    assert library.arguments("krb5_get_init_creds_opt_set_fast_flags")[2] == 1
    assert library.arguments("krb5_get_init_creds_keytab")[5] == b"host/a@X.TEST"


@pytest.mark.parametrize("forwardable", [False, True])
def test_a_ticket_is_forwardable_if_it_is_to_be_simulated(
    library: SimulatedLibrary, *, forwardable: bool
) -> None:
    exchange(forwardable=forwardable)
    asked = library.arguments("krb5_get_init_creds_opt_set_forwardable")
    assert asked[1] == int(forwardable)


def test_without_encryption_types_the_keytab_decides_simulated(library: SimulatedLibrary) -> None:
    exchange(enctypes=iter(()))
    assert "krb5_get_init_creds_opt_set_etype_list" not in library.names()


def test_each_exchange_has_a_cache_of_its_own_simulated(library: SimulatedLibrary) -> None:
    first, second = exchange(), exchange()
    assert first != second
    assert all(name.startswith("MEMORY:") for name in (first, second))
    resolved = [a[1] for name, a in library.calls if name == "krb5_cc_resolve"]
    assert resolved == [first.encode(), second.encode()]
