"""``credspec new`` and ``New-CredentialSpec`` against the real domain, as a user runs them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from credspec.directory.accounts import find_account
from credspec.directory.connection import Connection
from credspec.directory.domain import DomainFacts
from credspec.lab.domain import Lab

BIN = Path(sys.executable).parent
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(lab: Lab, tmp_path: Path) -> Run:
    """Run a command on the lab's joined host, in an empty directory."""

    def command(
        name: str, *arguments: str, given: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        variables = [f"{key}={value}" for key, value in environment.items()]
        # A cache of its own: nobody's ticket but what the test gets.
        cache = f"KRB5CCNAME=FILE:{tmp_path}/cache"
        argv = [*lab.exec_argv([str(BIN / name), *arguments])]
        return subprocess.run(
            ["env", cache, *variables, *argv],
            cwd=tmp_path,
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return command


def document(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


@pytest.fixture
def expected(facts: DomainFacts) -> dict[str, Any]:
    return {
        "CmsPlugins": ["ActiveDirectory"],
        "DomainJoinConfig": {
            "Sid": facts.sid,
            "MachineAccountName": "WebApp01",
            "Guid": facts.guid,
            "DnsTreeName": "example.test",
            "DnsName": "example.test",
            "NetBiosName": "EXAMPLE",
        },
        "ActiveDirectoryConfig": {
            "GroupManagedServiceAccounts": [
                {"Name": "WebApp01", "Scope": "example.test"},
                {"Name": "WebApp01", "Scope": "EXAMPLE"},
            ]
        },
    }


def test_every_form_of_a_name_gives_the_same_spec(
    run: Run, connection: Connection, facts: DomainFacts, expected: Any, tmp_path: Path
) -> None:
    account = find_account(connection, facts, "WebApp01")
    entry = connection.search(
        account.distinguished_name, "(objectClass=*)", ("objectGUID",), subtree=False
    )[0]
    guid = uuid.UUID(bytes_le=entry["objectguid"][0])
    forms = (
        *("webapp01", "WEBAPP01$", account.distinguished_name, str(guid), f"{{{guid}}}"),
        *(account.sid, "webapp01@example.test", "webapp01$@EXAMPLE.TEST", r"example\webapp01$"),
    )
    for number, form in enumerate(forms):
        made = run("credspec", "new", form, "--path", f"./{number}.json")
        assert made.returncode == 0, made.stderr
        assert document(tmp_path / f"{number}.json") == expected


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("Nobody", "account-not-found"),
        (str(uuid.UUID(int=1)), "account-not-found"),
        ("S-1-5-21-1-2-3-4", "account-not-found"),
        ("CN=Nobody,DC=example,DC=test", "account-not-found"),
        ("alice", "account-wrong-class"),
        ("LABHOST$", "account-wrong-class"),
        (r"OTHER\WebApp01", "account-other-domain"),
        ("*", "account-name-invalid"),
        ("WebApp0?", "account-name-invalid"),
        ("WebApp01)(objectClass=*", "account-name-invalid"),
        ("CN=WebApp01*,DC=example,DC=test", "account-not-found"),
        ("..", "account-name-invalid"),
        ("../x", "account-name-invalid"),
        ("Web\nApp01", "account-name-invalid"),
    ],
)
def test_names_that_lead_nowhere(run: Run, tmp_path: Path, name: str, code: str) -> None:
    made = run("credspec", "new", name, "--path", "./x.json")
    assert made.returncode in {1, 2}
    assert f"[{code}]" in made.stderr
    assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize("option", ["--domain", "--file-name", "--path", "--additional-account"])
@pytest.mark.parametrize("value", ["../../x", "a\nb", "a*)(x", "...", "/nowhere/x/y"])
def test_hostile_words_in_the_options(run: Run, tmp_path: Path, option: str, value: str) -> None:
    made = run("credspec", "new", "WebApp01", option, value)
    # A path may lead anywhere that exists: it is the user's own.
    if option == "--path" and made.returncode == 0:
        Path(tmp_path, f"{value}.json").resolve().unlink()
        return
    assert made.returncode in range(1, 6), made.stdout
    assert re.search(r"\[[a-z-]+\]", made.stderr)
    assert "Traceback" not in made.stderr
    assert made.stderr.count("\n") == len(re.findall(r"\[[a-z-]+\]\n", made.stderr))


def test_all_bad_additional_accounts_are_told_and_nothing_is_written(
    run: Run, tmp_path: Path
) -> None:
    """The module drops them and writes the file all the same."""
    made = run(
        "New-CredentialSpec",
        *("WebApp01", "-Path", "./x.json"),
        *("-AdditionalAccounts", "Nobody,@{AccountName='WebApp02';Domain='nowhere.test'},alice"),
    )
    assert made.returncode == 1
    for code in ("account-not-found", "domain-not-found", "account-wrong-class"):
        assert code in made.stderr
    assert list(tmp_path.iterdir()) == []


def test_additional_accounts_come_once_and_as_they_were_given(
    run: Run, expected: Any, tmp_path: Path
) -> None:
    made = run(
        "New-CredentialSpec",
        *("WebApp01", "-Path", "./x.json"),
        *("-AdditionalAccounts", "webapp02$,", "@{AccountName='WebApp03';", "Domain='EXAMPLE'}"),
    )
    assert made.returncode == 0, made.stderr
    accounts = expected["ActiveDirectoryConfig"]["GroupManagedServiceAccounts"]
    accounts += [
        {"Name": "WebApp02", "Scope": "example.test"},
        {"Name": "WebApp03", "Scope": "EXAMPLE"},
    ]
    assert document(tmp_path / "x.json") == expected


def test_names_are_not_cut_like_the_module_does(run: Run, lab: Lab) -> None:
    """TrimEnd('.json') makes contoso_producti.json of contoso_production."""
    for given in ("contoso_production", "contoso_production.json"):
        made = run("New-CredentialSpec", "WebApp01", "-FileName", given)
        assert made.returncode == 0, made.stderr
        path = lab.specs_directory / "contoso_production.json"
        assert str(path) in made.stdout
        path.unlink()


def test_the_default_name(run: Run, lab: Lab) -> None:
    made = run("credspec", "new", "WebApp01", "--output", "json")
    assert json.loads(made.stdout)["name"] == "example_webapp01.json"
    again = run("credspec", "new", "WebApp01", "--no-clobber")
    assert again.returncode == 1
    assert "already exists" in again.stderr
    (lab.specs_directory / "example_webapp01.json").unlink()


def test_a_typed_password(run: Run, lab: Lab, expected: Any, tmp_path: Path) -> None:
    """No joined host, no ticket: as on any machine that reaches a domain controller."""
    (tmp_path / "config.toml").write_text('[host_identity]\nkeytab = "/none"\n')
    # The lab's own configuration names the machine keytab: another one hides it.
    name = f"Administrator@{lab.realm.lower()}"
    arguments = ["new", "WebApp01", "--path", "./x.json", "--user", name]
    made = run("credspec", *arguments, given=f"{lab.admin_password}\n")
    assert made.returncode == 0, made.stderr
    assert document(tmp_path / "x.json") == expected
    refused = run("credspec", *arguments, given="wrong\n")
    assert refused.returncode == 5
    assert "[kdc-password-refused]" in refused.stderr
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("user", ["alice", "@x", "alice@", "alice@a/b", "alice@*"])
def test_users_without_a_realm(run: Run, user: str) -> None:
    made = run("credspec", "new", "WebApp01", "--path", "./x.json", "--user", user, given="x\n")
    assert made.returncode == 2
    assert made.stderr.startswith("credspec: ")


def test_a_keytab(run: Run, lab: Lab, expected: Any, tmp_path: Path) -> None:
    made = run(
        *("credspec", "new", "WebApp01", "--path", "./x.json"),
        *("--keytab", str(lab.host_keytab)),
    )
    assert made.returncode == 0, made.stderr
    assert document(tmp_path / "x.json") == expected


def test_a_ticket_of_kinit(run: Run, lab: Lab, expected: Any, tmp_path: Path) -> None:
    cache = f"FILE:{tmp_path}/cache"
    kinit = ["env", f"KRB5CCNAME={cache}", "kinit", f"Administrator@{lab.realm}"]
    subprocess.run(
        lab.exec_argv(kinit), input=lab.admin_password, text=True, check=True, capture_output=True
    )
    made = run("credspec", "new", "WebApp01", "--path", "./x.json")
    assert made.returncode == 0, made.stderr
    assert document(tmp_path / "x.json") == expected


def test_a_host_account(run: Run, expected: Any, tmp_path: Path) -> None:
    made = run(
        *("credspec", "new", "WebApp01", "--path", "./x.json"),
        *("--host-account", "rancher=cattle-gmsa:reader"),
    )
    assert made.returncode == 0, made.stderr
    expected["ActiveDirectoryConfig"]["HostAccountConfig"] = {
        "PortableCcgVersion": "1",
        "PluginGUID": "{e4781092-f116-4b79-b55e-28eb6a224e26}",
        "PluginInput": "cattle-gmsa:reader",
    }
    assert document(tmp_path / "x.json") == expected
