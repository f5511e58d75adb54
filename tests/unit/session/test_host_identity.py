"""Which principal of a keytab logs on, and the caller's own ticket; the KDC is simulated."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from credspec.errors import CredspecError, NotPermittedError, UnreachableError
from credspec.kerberos.kdc.decoy import LIFE, decoy_cache, new_decoy
from credspec.kerberos.kdc.encryption import EncryptionKey
from credspec.kerberos.kdc_errors import PrincipalRefusedError
from credspec.kerberos.keys import Enctype, Key
from credspec.kerberos.keytab import KeytabEntry, keytab_bytes
from credspec.kerberos.tickets import Ticket
from credspec.session.host_identity import CallersTicket, MachineKeytab

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Tried:
    """A keytab of some principals, the likeliest first, and what the KDC says to each."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch, *principals: str) -> None:
        self.names: list[str] = []
        self.failures: dict[str, CredspecError] = {}
        key = Key(Enctype.AES256_CTS_HMAC_SHA1_96, bytes(32))
        # The newest is the likeliest.
        entries = [KeytabEntry(name, 100 - number, key) for number, name in enumerate(principals)]
        keytab = directory / "host.keytab"
        keytab.write_bytes(keytab_bytes(entries))
        keytab.chmod(0o600)
        self.identity = MachineKeytab(keytab, now=lambda: NOW)
        patch.setattr(self.identity, "_tgt_of", self.tgt_of)

    def tgt_of(self, name: str) -> Ticket:
        self.names.append(name)
        if name in self.failures:
            raise self.failures[name]
        return Ticket(name, NOW, NOW + timedelta(hours=10), 18, b"")


A, SAME, OTHER = "A$@ONE.TEST", "B$@ONE.TEST", "C$@TWO.TEST"


def refused() -> CredspecError:
    return PrincipalRefusedError.of("kdc-principal", "simulated")


def unreachable() -> CredspecError:
    return UnreachableError.of("kdc-unreachable", "simulated")


def not_permitted() -> CredspecError:
    return NotPermittedError.of("kdc-policy", "simulated")


@pytest.mark.parametrize(
    ("failure", "tried"),
    [
        (None, [A]),
        (refused, [A, SAME]),
        # Another realm may be reachable; the same is not, whoever asks.
        (unreachable, [A, OTHER]),
        (not_permitted, [A]),
    ],
)
def test_the_next_principal_is_tried_where_that_may_help(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: Callable[[], CredspecError] | None,
    tried: list[str],
) -> None:
    others = [OTHER] if failure is unreachable else [SAME, OTHER]
    simulated = Tried(tmp_path, monkeypatch, A, *others)
    assert simulated.identity.name == A
    if failure is not None:
        simulated.failures[A] = failure()
    if failure is not_permitted:
        with pytest.raises(NotPermittedError, match="kdc-policy"):
            simulated.identity.log_on()
    else:
        assert simulated.identity.log_on().principal == tried[-1]
        assert simulated.identity.log_on().principal == tried[-1]
        assert simulated.identity.name == tried[-1]
        assert simulated.identity.has_tgt
    assert simulated.names == tried


def test_a_realm_that_is_not_reached_is_not_asked_for_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated = Tried(tmp_path, monkeypatch, A, SAME)
    assert simulated.identity.name == A
    simulated.failures[A] = unreachable()
    with pytest.raises(UnreachableError):
        simulated.identity.log_on()
    assert simulated.names == [A]


def test_a_callers_ticket_is_the_tgt_of_its_own_realm_while_it_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{cache}")
    assert CallersTicket.of_default_cache(NOW) is None
    decoy = new_decoy("alice@one.test", "alice@ONE.TEST", NOW)
    cache.write_bytes(decoy_cache(decoy, EncryptionKey.random()))
    found = CallersTicket.of_default_cache(NOW)
    assert found is not None
    assert found.domain == "one.test"
    ticket = found.log_on()
    assert (ticket.principal, ticket.start, ticket.end) == (
        "alice@ONE.TEST",
        decoy.start,
        decoy.end,
    )
    assert CallersTicket.of_default_cache(NOW + LIFE) is None
    # That of another realm says nothing of the caller's.
    content = cache.read_bytes()
    at = content.index(b"krbtgt")
    cache.write_bytes(content[:at] + content[at:].replace(b"ONE.TEST", b"TWO.TEST", 1))
    assert CallersTicket.of_default_cache(NOW) is None
