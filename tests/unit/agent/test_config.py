from __future__ import annotations

from pathlib import Path

import pytest

from credspec.agent.config import Config, load_config
from credspec.directory.connection import Transport
from credspec.directory.locator import ControllerPreference
from credspec.errors import UsageError


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return path


def test_everything(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        run_directory = "/run/x"
        spec_directory = "/srv/specs"
        [host_identity]
        keytab = "/etc/host.keytab"
        principal = "HOST1$"
        [ldap]
        transport = "ldaps"
        ca_file = "/etc/ca.pem"
        """,
    )
    assert load_config(path) == Config(
        run_directory=Path("/run/x"),
        spec_directory=Path("/srv/specs"),
        keytab=Path("/etc/host.keytab"),
        principal="HOST1$",
        transport=Transport.LDAPS,
        ca_file=Path("/etc/ca.pem"),
    )


def test_credentials_fetcher(tmp_path: Path) -> None:
    text = """
        [credentials_fetcher]
        lease_tree = "/srv/krbdir"
        owner = "1000:1001"
        mode = "0640"
        users = ["nobody"]
        """
    fetcher = load_config(written(tmp_path, text)).fetcher
    assert (fetcher.lease_tree, fetcher.uid, fetcher.gid, fetcher.mode) == (
        Path("/srv/krbdir"),
        1000,
        1001,
        0o640,
    )
    assert fetcher.uids == {65534}


@pytest.mark.parametrize(
    "line",
    [
        'lease_tree = "krbdir"',
        "lease_tree = 1",
        'owner = "root"',
        'owner = "1000"',
        'owner = "-1:0"',
        "owner = 0",
        'mode = "0755"',
        'mode = "0200"',
        "mode = 384",
        'users = "nobody"',
        'users = ["no such user"]',
    ],
)
def test_credentials_fetcher_with_wrong_values(tmp_path: Path, line: str) -> None:
    with pytest.raises(UsageError, match="config-wrong-value"):
        load_config(written(tmp_path, f"[credentials_fetcher]\n{line}\n"))


def test_no_file_means_defaults_but_a_named_one_must_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CREDSPEC_CONFIG", raising=False)
    monkeypatch.setattr("credspec.agent.config.DEFAULT_CONFIG_PATH", tmp_path / "none")
    assert load_config() == Config()
    monkeypatch.setenv("CREDSPEC_CONFIG", str(tmp_path / "gone.toml"))
    with pytest.raises(UsageError, match="config-unreadable"):
        load_config()


def test_how_many_leases_a_user_may_have(tmp_path: Path) -> None:
    path = written(tmp_path, "[policy]\nleases_per_user = 12")
    assert load_config(path).policy.leases_per_user == 12


@pytest.mark.parametrize("value", ["0", "-1", "true", "1.5", '"12"', "[]", "1000000000"])
def test_numbers_of_leases_that_are_none(tmp_path: Path, value: str) -> None:
    with pytest.raises(UsageError, match=r"policy\.leases_per_user"):
        load_config(written(tmp_path, f"[policy]\nleases_per_user = {value}"))


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        run_directory = 7
        spec_directory = "relative"
        keytap = "x"
        ldap = "yes"
        [host_identity]
        principle = "HOST$"
        """,
    )
    with pytest.raises(UsageError) as caught:
        load_config(path)
    assert sorted(p.where.partition(": ")[2] for p in caught.value.problems) == [
        "host_identity.principle",
        "keytap",
        "ldap",
        "run_directory",
        "spec_directory",
    ]


@pytest.mark.parametrize("text", ["a = ", "\x00", "[ldap]\ntransport = 'smtp'"])
def test_bad_files(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError):
        load_config(written(tmp_path, text))


def test_providers_and_the_account_provider_have_tables_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        '[host_identity]\naccount = "file:reader"\n'
        '[providers]\nenabled = ["file"]\nsecret_seconds = 0\n'
        '[providers.file]\ndirectory = "/etc/x"\n'
        '[account_provider]\nlisten = "127.0.0.1:1"\n'
    )
    config = load_config(path)
    assert config.account == "file:reader"
    assert config.providers.enabled == ("file",)
    assert config.providers.tables == {"file": {"directory": "/etc/x"}}
    assert config.account_provider == {"listen": "127.0.0.1:1"}
    path.write_text("providers = 1\naccount_provider = 2\n[ldap]\nproviders = 3\n")
    with pytest.raises(UsageError) as caught:
        load_config(path)
    assert len(caught.value.problems) == 3


def test_preferred_controllers_of_domains(tmp_path: Path) -> None:
    text = """
        [domains."Contoso.com"]
        controllers = ["DC1.contoso.com", "dc2.contoso.com."]
        site = "Berlin"
        [domains."fabrikam.com"]
        """
    assert load_config(written(tmp_path, text)).domains == {
        "contoso.com": ControllerPreference(("dc1.contoso.com", "dc2.contoso.com"), "Berlin"),
        "fabrikam.com": ControllerPreference(),
    }


def test_every_problem_of_the_domains_is_told_at_once(tmp_path: Path) -> None:
    text = """
        [domains.contoso]
        [domains."a.test"]
        controllers = ["dc1", 5, "ok.a.test", "../x.y"]
        site = "a.b"
        sites = ["Berlin"]
        [domains."A.test"]
        [domains."b.test"]
        controllers = "dc1.b.test"
        site = ""
        [domains."c.test"]
        controllers = []
        """
    with pytest.raises(UsageError) as caught:
        load_config(written(tmp_path, text))
    found = sorted((p.where.rpartition(": ")[2], p.found) for p in caught.value.problems)
    assert found == [
        ("domains", "'A.test'"),
        ("domains", "'contoso'"),
        ('domains."a.test".controllers', "'../x.y'"),
        ('domains."a.test".controllers', "'dc1'"),
        ('domains."a.test".controllers', "5"),
        ('domains."a.test".site', "'a.b'"),
        ('domains."a.test".sites', "unknown key"),
        ('domains."b.test".controllers', "'dc1.b.test'"),
        ('domains."b.test".site', "''"),
        ('domains."c.test".controllers', "[]"),
    ]
    with pytest.raises(UsageError, match="a table"):
        load_config(written(tmp_path, "domains = 5"))


@pytest.mark.parametrize(("text", "expected"), [("0", 0), ("30", 30), ("2.5", 2.5), ("3600", 3600)])
def test_how_long_a_start_waits(tmp_path: Path, text: str, expected: float) -> None:
    assert load_config(written(tmp_path, f"wait_seconds = {text}")).wait_seconds == expected


@pytest.mark.parametrize("text", ["-1", "3601", "true", '"30"', "nan", "inf", "[]"])
def test_waits_that_are_none(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"wait_seconds.*from 0 to 3600"):
        load_config(written(tmp_path, f"wait_seconds = {text}"))
