"""A second real domain behind a forest trust, and specs with accounts of both."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from credspec.errors import UsageError
from credspec.lab.domain import Lab, open_lab, run_tool
from credspec.lab.trust import TRUSTED_ACCOUNT, _make_trust, down_trusted, up_trusted

pytestmark = pytest.mark.timeout(900)  # domains and controllers are made


def trusts(lab: Lab) -> list[str]:
    database = str(lab.directory / "dc/private/sam.ldb")
    found = run_tool(["ldbsearch", "-H", database, "(objectClass=trustedDomain)", "trustPartner"])
    return re.findall(r"^trustPartner: (\S+)$", found, re.MULTILINE)


BIN = Path(sys.executable).parent
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def other(lab: Lab) -> Iterator[Lab]:
    configured = lab.smb_conf.read_text("utf-8")
    found = up_trusted(lab, name=f"{lab.name}-other")
    yield found
    down_trusted(lab, found)
    assert lab.smb_conf.read_text("utf-8") == configured
    assert not found.directory.exists()
    assert trusts(lab) == []


@pytest.fixture
def run(lab: Lab, tmp_path: Path) -> Run:
    def command(*words: str) -> subprocess.CompletedProcess[str]:
        argv = lab.exec_argv([str(BIN / words[0]), *words[1:]])
        return subprocess.run(
            [*("env", f"KRB5CCNAME=FILE:{tmp_path}/cache"), *argv],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return command


def test_it_is_up_once_and_trusted(lab: Lab, other: Lab) -> None:
    steps: list[str] = []
    assert up_trusted(lab, name=other.name, progress=steps.append) == other
    assert steps == []
    assert open_lab(other.name) == other
    assert trusts(lab) == ["other.test"]
    assert trusts(other) == ["example.test"]


def test_a_lab_without_the_trust_is_no_partner(lab: Lab) -> None:
    with pytest.raises(UsageError, match="lab-name-taken"):
        up_trusted(lab, name=lab.name)


def test_a_trust_with_a_controller_that_is_late(lab: Lab, other: Lab) -> None:
    """Its first attempt finds one side's trust in place and the other side's controller away."""
    other.stop_dc()
    steps: list[str] = []

    def progress(line: str) -> None:
        steps.append(line)
        if len(steps) == 2:
            other.start_dc()

    _make_trust(lab, other, progress)
    assert len(steps) >= 2
    assert trusts(lab) == ["other.test"]
    assert trusts(other) == ["example.test"]


def accounts(path: Path) -> Any:
    document = json.loads(path.read_text("utf-8"))
    return [
        (entry["Name"], entry["Scope"])
        for entry in document["ActiveDirectoryConfig"]["GroupManagedServiceAccounts"]
    ]


@pytest.mark.parametrize("domain", ["other.test", "OTHER.TEST", "OTHER", "other"])
def test_a_spec_with_an_account_of_the_other_domain(
    run: Run, other: Lab, tmp_path: Path, domain: str
) -> None:
    table = f"@{{AccountName='{TRUSTED_ACCOUNT.lower()}';Domain='{domain}'}}"
    made = run(
        *("New-CredentialSpec", "-AccountName", "WebApp01", "-Path", "./a.json"),
        *("-AdditionalAccounts", table),
    )
    assert made.returncode == 0, made.stderr
    assert accounts(tmp_path / "a.json") == [
        ("WebApp01", "example.test"),
        ("WebApp01", "EXAMPLE"),
        (TRUSTED_ACCOUNT, domain),
    ]
    made = run(
        *("credspec", "new", "WebApp01", "--path", "./b.json"),
        *("--additional-account", f"{TRUSTED_ACCOUNT}@{domain}"),
    )
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()


def test_a_spec_of_the_other_domain(run: Run, lab: Lab, other: Lab, tmp_path: Path) -> None:
    made = run("credspec", "new", f"{TRUSTED_ACCOUNT}@other.test", "--path", "./a.json")
    assert made.returncode == 0, made.stderr
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["DomainJoinConfig"]["DnsName"] == "other.test"
    assert document["DomainJoinConfig"]["NetBiosName"] == "OTHER"
    assert document["DomainJoinConfig"]["MachineAccountName"] == TRUSTED_ACCOUNT
    assert accounts(tmp_path / "a.json") == [
        (TRUSTED_ACCOUNT, "other.test"),
        (TRUSTED_ACCOUNT, "OTHER"),
    ]


def test_what_the_other_domain_lacks_is_told_with_all_the_rest(run: Run, other: Lab) -> None:
    made = run(
        *("credspec", "new", "WebApp01", "--path", "./a.json"),
        *("--additional-account", r"OTHER\Nobody01", "--additional-account", "Nobody02"),
        *("--additional-account", r"NOWHERE\Nobody03", "--additional-account", "N@nowhere.test"),
    )
    assert made.returncode == 1
    assert '"Nobody01" in other.test' in made.stderr
    assert '"Nobody02" in example.test' in made.stderr
    assert "[domain-not-trusted]" in made.stderr
    assert "[domain-not-found]" in made.stderr


def test_the_doctor_walks_to_the_other_domain(run: Run, other: Lab, tmp_path: Path) -> None:
    run("credspec", "new", f"{TRUSTED_ACCOUNT}@other.test", "--path", "./a.json")
    checked = run("credspec", "check", "./a.json", "--output", "json")
    steps = {step["step"]: step for step in json.loads(checked.stdout)["steps"]}
    for name in ("host-ticket", "ldap", "domain", "permission", "password", "ticket"):
        assert steps[name]["state"] == "ok", steps[name]
    assert f"{TRUSTED_ACCOUNT}$@OTHER.TEST" in steps["ticket"]["text"]
