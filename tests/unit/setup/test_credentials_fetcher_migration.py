from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from credspec.cli.import_ import import_
from credspec.setup.credentials_fetcher_migration import (
    Sources,
    Takeover,
    policy_lines,
    read_installation,
    read_settings,
    write_specs,
)
from credspec.spec.document import CredentialSpec
from credspec.spec.spec_directory import SpecDirectory

ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:reader-AbCdEf"
LEASES = {
    "0123456789abcdef0123": [("WebApp01", "Contoso.com", {})],
    "3210": [("WebApp02", "contoso.com", {"credential_arn": ARN, "domainless_user": "reader"})],
    "credspec": [("WebApp03", "contoso.com", {"domainless_user": "reader"})],
    "k8s": [("WebApp04", "contoso.com", {"domainless_user": "kubehostprincipal"})],
    "bad": [("../x", "contoso.com", {}), ("WebApp05", "no domain", {})],
}


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    tree = tmp_path / "krbdir"
    for lease, tickets in LEASES.items():
        (tree / lease).mkdir(parents=True)
        entries = [
            {
                "krb_file_path": f"/var/credentials-fetcher/krbdir/{lease}/{account}/krb5cc",
                "service_account_name": account,
                "domain_name": domain,
                **others,
            }
            for account, domain, others in tickets
        ]
        text = json.dumps({"krb_ticket_info": entries})
        (tree / lease / f"{lease}_metadata.json").write_text(text)
    ecs = tmp_path / "ecs.config"
    ecs.write_text(
        "ECS_CLUSTER=mine\nDOMAIN_CONTROLLER_GMSA=dc1.contoso.com\n# a comment\n"
        "CF_GMSA_OU=OU=Accounts\n"
    )
    fetcher = tmp_path / "credentials-fetcher.conf"
    fetcher.write_text('LDAPSearchTimeout = 5\nCFGmsaSecretName = "prod/reader"\nOther = 1\n')
    return Sources(lease_tree=tree, ecs_config=ecs, fetcher_config=fetcher)


def codes(problems: list) -> list[str]:
    return sorted(problem.code for problem in problems)


def test_an_installation(sources: Sources, tmp_path: Path) -> None:
    found = read_installation(sources)
    specs = {name: CredentialSpec.from_text(text) for name, text in found.specs.items()}
    assert sorted(specs) == [f"contoso.com_webapp0{number}.json" for number in (1, 2, 3)]
    inputs = {
        name: host.plugin_input if host else None
        for name, spec in specs.items()
        for host in [spec.active_directory_config.host_account_config]
    }
    assert inputs == {
        "contoso.com_webapp01.json": "prod/reader",
        "contoso.com_webapp02.json": {"CredentialArn": ARN},
        "contoso.com_webapp03.json": None,
    }
    assert codes(found.notes) == ["not-needed"] * 3 + ["user-not-kept"]
    assert codes(found.refused) == [
        "account-name-invalid",
        "domain-name-invalid",
        "setting-unknown",
        "user-kubernetes",
    ]
    lines = found.configuration + policy_lines(found)
    assert tomllib.loads("\n".join(lines)) == {
        "credentials_fetcher": {"lease_tree": str(sources.lease_tree)},
        "policy": {"accounts": [f"WebApp0{number}@contoso.com" for number in (1, 2, 3)]},
        "providers": {"enabled": ["aws"]},
    }
    assert ARN.rsplit(":", maxsplit=1)[-1] not in "".join(
        problem.text() for problem in found.refused
    )


def test_specs_are_written_once_and_never_over_others(sources: Sources, tmp_path: Path) -> None:
    directory = SpecDirectory(tmp_path / "specs")
    directory.path.mkdir()
    (directory.path / "contoso.com_webapp01.json").write_text("{}")
    found = read_installation(sources)
    assert len(write_specs(found, directory)) == 2
    assert codes(found.refused).count("spec-exists") == 1
    assert (directory.path / "contoso.com_webapp01.json").read_text() == "{}"
    again = read_installation(sources)
    assert write_specs(again, directory) == []


def test_nothing_is_there(tmp_path: Path) -> None:
    none = tmp_path / "none"
    assert (
        read_installation(Sources(lease_tree=none, ecs_config=none, fetcher_config=none))
        == Takeover()
    )


def test_links_are_not_followed(sources: Sources, tmp_path: Path) -> None:
    moved = sources.lease_tree.rename(tmp_path / "moved")
    sources.lease_tree.symlink_to(moved)
    real = sources.ecs_config.rename(tmp_path / "real")
    sources.ecs_config.symlink_to(real)
    found = read_installation(sources)
    assert found.specs == {}
    assert codes(found.refused).count("path-link") == 2
    sources.lease_tree.unlink()
    moved.rename(sources.lease_tree)
    lease = sources.lease_tree / "0123456789abcdef0123"
    lease.rename(tmp_path / "lease")
    lease.symlink_to(tmp_path / "lease")
    found = read_installation(sources)
    assert "contoso.com_webapp01.json" not in found.specs
    assert codes(found.refused).count("path-link") == 2


def test_a_spec_file_of_the_configuration(sources: Sources, tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(read_installation(sources).specs["contoso.com_webapp02.json"])
    for value, refused in ((path, 0), (f"{path}:credspec", 0), (tmp_path / "none", 1), ("one", 1)):
        sources.ecs_config.write_text(f"CF_CRED_SPEC_FILE={value}\n")
        before = Sources(
            lease_tree=tmp_path / "none",
            ecs_config=sources.ecs_config,
            fetcher_config=tmp_path / "none",
        )
        assert len(read_installation(before).refused) == refused


def test_two_ways_to_log_on_for_one_account(sources: Sources) -> None:
    other = sources.lease_tree / "other"
    other.mkdir()
    entry = {
        "krb_file_path": "/x/krb5cc",
        "service_account_name": "webapp01",
        "domain_name": "contoso.com",
        "domainless_user": "awsdomainlessusersecret:other",
    }
    (other / "other_metadata.json").write_text(json.dumps([entry]))
    assert "spec-conflict" in codes(read_installation(sources).refused)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=b", [("A", "b")]),
        (" A = b c \n", [("A", "b c")]),
        ("A=\"b\"\nB='c'\n", [("A", "b"), ("B", "c")]),
        ("A=b=c", [("A", "b=c")]),
        ("#A=b\n\n", []),
        ("A=", [("A", "")]),
    ],
)
def test_settings(text: str, expected: list[tuple[str, str]]) -> None:
    assert read_settings(text.encode(), "x") == (expected, [])


def test_settings_that_are_none_are_not_quoted() -> None:
    settings, problems = read_settings(b"secret\n=secret\nA B=secret\nC=d\n", "x")
    assert settings == [("C", "d")]
    assert [problem.where for problem in problems] == ["x:1", "x:2", "x:3"]
    assert "secret" not in str(problems)
    assert read_settings(b"\xff", "x")[0] == []


@given(st.binary(max_size=200))
def test_any_settings(data: bytes) -> None:
    settings, _ = read_settings(data, "x")
    assert all(key.isidentifier() and value.isprintable() for key, value in settings)


def test_the_command(sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.toml"
    (tmp_path / "specs").mkdir()
    config.write_text(f'spec_directory = "{tmp_path}/specs"\n')
    monkeypatch.setenv("CREDSPEC_CONFIG", str(config))
    options = ["credentials-fetcher", "--krbdir", str(sources.lease_tree)]
    options += ["--ecs-config", str(sources.ecs_config)]
    options += ["--fetcher-config", str(sources.fetcher_config)]
    dry = CliRunner().invoke(import_, [*options, "--dry-run"], standalone_mode=False)
    assert dry.return_value == 1
    assert dry.stdout.count("would write") == 3
    assert list((tmp_path / "specs").iterdir()) == []
    shown = CliRunner().invoke(import_, [*options, "--output", "json"], standalone_mode=False)
    document = json.loads(shown.stdout)
    assert document["written"] == document["specs"]
    assert len(document["written"]) == len(list((tmp_path / "specs").iterdir())) == 3
    none = ["--krbdir", "/none", "--ecs-config", "/none", "--fetcher-config", "/none"]
    nothing = CliRunner().invoke(import_, [options[0], *none], standalone_mode=False)
    assert (nothing.return_value, nothing.stdout) == (0, "there is nothing to take over\n")
