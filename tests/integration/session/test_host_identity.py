from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import krb5
import pytest

from credspec.errors import NotPermittedError
from credspec.kerberos.keys import Enctype, Key
from credspec.kerberos.keytab import KeytabEntry, joined_keytabs, keytab_bytes
from credspec.kerberos.krb5_conf import AgentKrb5Conf
from credspec.lab.domain import Lab
from credspec.lab.provisioning import HOST_ACCOUNT
from credspec.session.host_identity import CallersTicket, MachineKeytab


def test_the_machine_keytab_gets_a_ticket_once(lab: Lab, krb5_conf: AgentKrb5Conf) -> None:
    del krb5_conf
    identity = MachineKeytab(lab.host_keytab)
    assert identity.name == f"{HOST_ACCOUNT}@{lab.realm}"
    assert identity.domain == lab.dns_domain
    first = identity.log_on()
    assert identity.log_on() is first
    identity.forget()
    assert identity.log_on() is not first


@pytest.mark.parametrize("principal", [HOST_ACCOUNT, "labhost$", f"{HOST_ACCOUNT}@EXAMPLE.TEST"])
def test_the_principal_may_be_named_with_or_without_realm(
    lab: Lab, krb5_conf: AgentKrb5Conf, principal: str
) -> None:
    del krb5_conf
    assert MachineKeytab(lab.host_keytab, principal).name == f"{HOST_ACCOUNT}@{lab.realm}"


def test_a_missing_keytab(tmp_path: Path) -> None:
    with pytest.raises(NotPermittedError, match="host-keytab-missing"):
        MachineKeytab(tmp_path / "none").log_on()


def test_a_keytab_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "keytab").write_bytes(b"not a keytab")
    with pytest.raises(NotPermittedError, match="host-keytab-unreadable"):
        MachineKeytab(tmp_path / "keytab").log_on()


def test_a_keytab_of_others(lab: Lab) -> None:
    with pytest.raises(NotPermittedError, match=r"LABHOST\$@EXAMPLE\.TEST.*host-principal-missing"):
        MachineKeytab(lab.host_keytab, "OTHER$").log_on()


def test_a_stale_keytab(lab: Lab, krb5_conf: AgentKrb5Conf, tmp_path: Path) -> None:
    """The computer account's password was changed after the keytab was made."""
    del krb5_conf
    lab.samba_tool("computer", "create", "STALE")
    for password in ("First-Passw0rd-1!", "Second-Passw0rd-2!", "Third-Passw0rd-3!"):
        lab.samba_tool("user", "setpassword", "STALE$", f"--newpassword={password}")
        if password.startswith("First"):
            lab.samba_tool("user", "enable", "STALE$")
            keytab = tmp_path / "stale.keytab"
            lab.samba_tool("domain", "exportkeytab", str(keytab), "--principal=STALE$")
    with pytest.raises(NotPermittedError, match="host-keytab-stale"):
        MachineKeytab(tmp_path / "stale.keytab").log_on()


def test_a_callers_ticket_counts_only_while_it_lasts(
    lab: Lab, krb5_conf: AgentKrb5Conf, monkeypatch: pytest.MonkeyPatch
) -> None:
    del krb5_conf
    monkeypatch.setenv("KRB5CCNAME", "MEMORY:caller")
    assert CallersTicket.of_default_cache(datetime.now(UTC)) is None
    context = krb5.init_context()
    table = krb5.kt_resolve(context, f"FILE:{lab.host_keytab}".encode())
    name = krb5.parse_name_flags(context, f"{HOST_ACCOUNT}@{lab.realm}".encode())
    options = krb5.get_init_creds_opt_alloc(context)
    credentials = krb5.get_init_creds_keytab(context, name, options, table)
    cache = krb5.cc_resolve(context, b"MEMORY:caller")
    krb5.cc_initialize(context, cache, name)
    krb5.cc_store_cred(context, cache, credentials)
    found = CallersTicket.of_default_cache(datetime.now(UTC))
    assert found is not None
    assert found.domain == lab.dns_domain
    assert CallersTicket.of_default_cache(datetime(2100, 1, 1, tzinfo=UTC)) is None


def test_a_service_that_the_domain_does_not_know_is_left_to_the_logon(
    host_identity: MachineKeytab,
) -> None:
    host_identity.get_service_ticket("ldap/nowhere.example.test")
    # The host is logged on as before.
    assert host_identity.log_on().principal == host_identity.name


@pytest.mark.parametrize(
    "leftover", ["OLDHOST$@EXAMPLE.TEST", "LABHOST$@CORP-OLD.TEST", "OLDHOST$@CORP-OLD.TEST"]
)
@pytest.mark.parametrize("timestamp", [0, 2**31 - 1])
def test_entries_left_over_from_another_name_or_domain_do_no_harm(
    lab: Lab, krb5_conf: AgentKrb5Conf, tmp_path: Path, leftover: str, timestamp: int
) -> None:
    del krb5_conf
    key = Key(Enctype.AES256_CTS_HMAC_SHA1_96, bytes(32))
    old = keytab_bytes([KeytabEntry(leftover, 9, key)], timestamp=timestamp)
    keytab = tmp_path / "keytab"
    keytab.write_bytes(joined_keytabs([old, lab.host_keytab.read_bytes()]))
    identity = MachineKeytab(keytab)
    assert identity.log_on().principal == f"{HOST_ACCOUNT}@{lab.realm}"
    assert leftover in identity.guess


def test_a_guess_is_named_in_the_refusal(
    lab: Lab, krb5_conf: AgentKrb5Conf, tmp_path: Path
) -> None:
    del krb5_conf
    key = Key(Enctype.AES256_CTS_HMAC_SHA1_96, bytes(32))
    entries = [KeytabEntry(f"{name}$@{lab.realm}", 1, key) for name in ("GONE1", "GONE2")]
    (tmp_path / "keytab").write_bytes(keytab_bytes(entries))
    with pytest.raises(NotPermittedError) as caught:
        MachineKeytab(tmp_path / "keytab").log_on()
    assert caught.value.code == "kdc-principal-unknown"
    for text in ("GONE1$@", "GONE2$@", "[host_identity]"):
        assert text in str(caught.value)
