"""Who asks a KDC for tickets that may be forwarded; the KDC is simulated and gives none."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from credspec.directory.managed_password import PASSWORD_BYTES, ManagedPassword
from credspec.errors import CredspecError
from credspec.kerberos.keys import Enctype, Key
from credspec.kerberos.keytab import KeytabEntry, keytab_bytes
from credspec.kerberos.tickets import ticket_from_keytab, ticket_from_managed_password
from support.domain.simulated_kdc import SimulatedKdc

REALM = "EXAMPLE.TEST"
ONE = b"\x41\x00" * (PASSWORD_BYTES // 2)


@pytest.fixture
def kdc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedKdc]:
    with SimulatedKdc(REALM) as found:
        address = f"127.0.0.1:{found.port}"
        conf = tmp_path / "krb5.conf"
        conf.write_text(
            f"[libdefaults]\n dns_lookup_kdc = false\n udp_preference_limit = 1\n[realms]\n"
            f" {REALM} = {{\n  kdc = {address}\n  master_kdc = {address}\n }}\n"
        )
        monkeypatch.setenv("KRB5_CONFIG", str(conf))
        yield found


def test_an_account_s_ticket_is_asked_for_as_forwardable(kdc: SimulatedKdc) -> None:
    """In one round trip, and in those that this KDC wants."""
    password = ManagedPassword(ONE, None, timedelta(hours=9), timedelta(hours=9))
    with pytest.raises(CredspecError):
        ticket_from_managed_password("Web$", REALM, password)
    with_a_key = kdc.timestamps
    assert len(with_a_key) >= 2
    assert all(request.is_forwardable for request in with_a_key)


def test_the_host_s_own_is_not(kdc: SimulatedKdc, tmp_path: Path) -> None:
    """It stays in the agent, and nobody is to hand it on."""
    keytab = tmp_path / "keytab"
    key = Key(Enctype.AES256_CTS_HMAC_SHA1_96, b"k" * 32)
    keytab.write_bytes(keytab_bytes([KeytabEntry(f"HOST$@{REALM}", 1, key)]))
    with pytest.raises(CredspecError):
        ticket_from_keytab(f"HOST$@{REALM}", keytab)
    assert kdc.asked
    assert not any(request.is_forwardable for request in kdc.asked)
