"""Tickets of services by a TGT that never leaves memory, from the real domain."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import krb5
import pytest

from credspec.kerberos.kdc_errors import ServiceUnknownError
from credspec.kerberos.service_credentials import get_service_ticket, services_ccache
from credspec.kerberos.service_names import ServiceName
from credspec.kerberos.tickets import Ticket
from credspec.lab.domain import Lab
from credspec.session.domain_session import DomainSession

_RENEWABLE_FORWARDABLE_PROXIABLE = 0x00800000 | 0x40000000 | 0x10000000
_SKEW = timedelta(minutes=5)


def name(text: str) -> ServiceName:
    found = ServiceName.parse(text)
    assert found is not None
    return found


@pytest.fixture
def tgt(session: DomainSession) -> Ticket:
    """The account's TGT, which may be forwarded, as leases have it."""
    found = session.acquire("WebApp01").ticket
    assert found.forwardable
    return found


def klist(cache: Path, *options: str) -> subprocess.CompletedProcess[str]:
    variables = dict(os.environ) | {"LC_ALL": "C"}
    command = ["klist", *options, str(cache)]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


def test_a_ticket_has_the_life_that_was_asked_for_and_no_rights_of_the_tgt(
    lab: Lab, tgt: Ticket
) -> None:
    before = datetime.now(UTC)
    for seconds in (30, 600):
        life = timedelta(seconds=seconds)
        found = get_service_ticket(tgt, name(f"ldap/{lab.dc_host}"), life)
        assert timedelta() < found.end - before <= life + timedelta(seconds=60)
        assert not found.flags & _RENEWABLE_FORWARDABLE_PROXIABLE
        assert (found.client, found.realm) == (f"WebApp01$@{lab.realm}", lab.realm)
        assert found.key
        assert found.ticket
        assert found.key.hex() not in repr(found)


def test_a_cache_of_services_has_no_tgt_and_opens_the_service(
    lab: Lab, tgt: Ticket, tmp_path: Path
) -> None:
    service = f"ldap/{lab.dc_host}"
    found = get_service_ticket(tgt, name(service), timedelta(minutes=10))
    cache = tmp_path / "krb5cc"
    cache.write_bytes(services_ccache(tgt.principal, [found]))
    cache.chmod(0o600)
    read = krb5.cc_resolve(context := krb5.init_context(), f"FILE:{cache}".encode())
    assert [each.server.name for each in read] == [f"{service}@{lab.realm}".encode()]
    assert krb5.cc_get_principal(context, read).name == tgt.principal.encode()
    assert b"krbtgt" not in cache.read_bytes()
    assert klist(cache, "-s").returncode == 0
    config = tmp_path / "krb5.conf"
    config.write_text(
        f"[libdefaults]\ndefault_realm = {lab.realm}\ndns_lookup_kdc = false\nrdns = false\n"
        "dns_canonicalize_hostname = false\n"
    )
    asked = subprocess.run(
        ["ldapwhoami", "-Q", "-Y", "GSSAPI", "-H", f"ldap://{lab.dc_host}"],
        env=dict(os.environ) | {"KRB5CCNAME": f"FILE:{cache}", "KRB5_CONFIG": str(config)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (asked.returncode, "WebApp01$" in asked.stdout) == (0, True), asked.stderr


def test_a_service_that_nobody_has_is_unknown(lab: Lab, tgt: Ticket) -> None:
    for wanted in ("HTTP/nowhere.example.test", f"HTTP/nowhere.example.test@{lab.realm}"):
        with pytest.raises(ServiceUnknownError, match="kdc-service-unknown"):
            get_service_ticket(tgt, name(wanted), timedelta(minutes=10))
