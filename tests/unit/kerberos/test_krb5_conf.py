from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from credspec.errors import CredspecError
from credspec.kerberos.krb5_conf import (
    AgentKrb5Conf,
    DefaultPaths,
    broker_krb5_conf,
    container_krb5_conf,
)

BROKER = """\
[libdefaults]
 default_realm = EXAMPLE.TEST
 default_ccache_name = /run/credspec/krb5cc
 rdns = false
 udp_preference_limit = 1
 dns_lookup_kdc = false
 dns_canonicalize_hostname = false

[realms]
 EXAMPLE.TEST = {
  kdc = 127.0.0.1:40123
  master_kdc = 127.0.0.1:40123
 }
 OTHER.TEST = {
  kdc = 127.0.0.1:40123
  master_kdc = 127.0.0.1:40123
 }

[domain_realm]
 .example.test = EXAMPLE.TEST
 example.test = EXAMPLE.TEST
 .other.test = OTHER.TEST
 other.test = OTHER.TEST
"""

GOLDEN = """\
[libdefaults]
 default_realm = EXAMPLE.TEST
 forwardable = true
 rdns = false
 dns_lookup_kdc = true
 udp_preference_limit = 1
 dns_canonicalize_hostname = false

[realms]
 EXAMPLE.TEST = {
  kdc = 192.0.2.1
  kdc = [2001:db8::1]
  master_kdc = 192.0.2.1
  master_kdc = [2001:db8::1]
 }

[domain_realm]
 .example.test = EXAMPLE.TEST
 example.test = EXAMPLE.TEST
"""


def test_for_a_container() -> None:
    kdcs = {"EXAMPLE.TEST": ["192.0.2.1", "2001:db8::1"]}
    assert container_krb5_conf("EXAMPLE.TEST", kdcs) == GOLDEN


def test_for_a_container_with_accounts_of_two_domains() -> None:
    kdcs = {"EXAMPLE.TEST": ["192.0.2.1"], "OTHER.TEST": ["192.0.2.2"]}
    text = container_krb5_conf("EXAMPLE.TEST", kdcs)
    assert "default_realm = EXAMPLE.TEST" in text
    assert " OTHER.TEST = {\n  kdc = 192.0.2.2\n" in text
    assert " .other.test = OTHER.TEST\n" in text


def test_programs_without_our_environment_find_all_in_it() -> None:
    paths = DefaultPaths(ccache="/l/krb5cc", keytab="/l/krb5.keytab", replay_caches="/l/rcache")
    text = container_krb5_conf("A.TEST", {}, paths=paths, name_fallback=True)
    lines = {line.strip() for line in text.splitlines()}
    assert {
        "default_ccache_name = /l/krb5cc",
        "default_keytab_name = /l/krb5.keytab",
        "default_rcache_name = file2:/l/rcache/%{euid}.rcache2",
        "dns_canonicalize_hostname* = fallback",
    } <= lines
    assert "rdns = false" in lines
    plain = container_krb5_conf("A.TEST", {}, paths=DefaultPaths(ccache="/l/krb5cc"))
    assert "keytab" not in plain
    assert "rcache" not in plain
    assert "fallback" not in plain


@pytest.mark.parametrize("name_fallback", [False, True])
@pytest.mark.parametrize("keytab", [None, "/run/credspec/krb5.keytab"])
def test_readers_that_know_yes_and_no_only_read_it(
    keytab: str | None, *, name_fallback: bool
) -> None:
    """As gokrb5 does, which refuses a whole file for a flag with another word."""
    flags = {"dns_canonicalize_hostname", "dns_lookup_kdc", "rdns", "forwardable", "canonicalize"}
    paths = DefaultPaths(ccache="/run/credspec/krb5cc", keytab=keytab)
    text = container_krb5_conf("A.TEST", {}, paths=paths, name_fallback=name_fallback)
    for line in text.partition("[realms]")[0].splitlines()[1:]:
        name, equals, value = map(str.strip, line.partition("="))
        assert equals or not name or name.startswith("["), line
        assert name not in flags or value in {"true", "false"}, line
        assert "include" not in line


def test_without_addresses_dns_finds_the_kdc() -> None:
    assert "[realms]" not in container_krb5_conf("EXAMPLE.TEST", {"EXAMPLE.TEST": []})


def test_the_agents_file_holds_every_realm_and_refuses_skew(tmp_path: Path) -> None:
    path = tmp_path / "krb5.conf"
    conf = AgentKrb5Conf(path)
    assert "kdc_timesync = 0" in path.read_text()
    conf.set_kdcs("A.TEST", ["192.0.2.1"])
    conf.set_kdcs("B.TEST", ["192.0.2.2"])
    conf.set_kdcs("A.TEST", ["192.0.2.3"])
    text = path.read_text()
    assert "192.0.2.1" not in text
    assert "A.TEST = {\n  kdc = 192.0.2.3" in text
    assert "B.TEST = {\n  kdc = 192.0.2.2" in text
    assert [p.name for p in tmp_path.iterdir()] == ["krb5.conf"]


def test_a_write_that_fails_is_tried_again_with_the_next_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a disk that was full once would leave the agent with old controllers."""
    path = tmp_path / "krb5.conf"
    conf = AgentKrb5Conf(path)
    conf.set_kdcs("A.TEST", ["192.0.2.1"])

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fails)
        with pytest.raises(CredspecError, match="krb5-conf-unwritable"):
            conf.set_kdcs("A.TEST", ["192.0.2.2"])
    assert [p.name for p in tmp_path.iterdir()] == ["krb5.conf"]
    assert "192.0.2.1" in path.read_text()
    conf.set_kdcs("A.TEST", ["192.0.2.2"])
    assert "192.0.2.2" in path.read_text()
    assert "192.0.2.1" not in path.read_text()


def test_what_is_known_already_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "krb5.conf"
    conf = AgentKrb5Conf(path)
    conf.set_kdcs("A.TEST", ["192.0.2.1", "192.0.2.2"])
    path.unlink()
    conf.set_kdcs("A.TEST", iter(["192.0.2.1", "192.0.2.2"]))
    assert not path.exists()
    conf.set_kdcs("A.TEST", ["192.0.2.2", "192.0.2.1"])  # the order counts
    assert path.exists()


def test_the_broker_is_the_kdc_of_every_realm() -> None:
    paths = DefaultPaths(ccache="/run/credspec/krb5cc")
    text = broker_krb5_conf("EXAMPLE.TEST", ["OTHER.TEST", "EXAMPLE.TEST"], 40123, paths=paths)
    assert text == BROKER


def test_before_the_broker_serves_no_kdc_is_named() -> None:
    text = broker_krb5_conf("EXAMPLE.TEST", [], None, name_fallback=True)
    assert " kdc = " not in text
    assert "dns_lookup_kdc = false" in text
    assert "dns_canonicalize_hostname* = fallback" in text
