"""The doctor on accounts of other domains that a spec names, with two real domains."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from credspec.config.host import load_config
from credspec.doctor.examination import Examination
from credspec.doctor.step import State, StepResult
from credspec.kerberos.krb5_conf import AgentKrb5Conf
from credspec.lab.domain import Lab, open_lab, run_tool
from credspec.lab.trust import TRUSTED_ACCOUNT, down_trusted, trusted_name
from credspec.session.host_identity import MachineKeytab

pytestmark = pytest.mark.timeout(900)  # domains and controllers are made


@pytest.fixture(scope="module")
def other(lab: Lab) -> Iterator[Lab]:
    program = str(Path(sys.executable).parent / "credspec")
    command = [program, "lab", "up", "--name", lab.name, "--domains", "2"]
    subprocess.run(command, check=True, capture_output=True)
    found = open_lab(trusted_name(lab.name))
    yield found
    down_trusted(lab, found)


def examine(lab: Lab, krb5_conf: AgentKrb5Conf, *others: tuple[str, str]) -> dict[str, StepResult]:
    document = {
        "CmsPlugins": ["ActiveDirectory"],
        "DomainJoinConfig": {
            "DnsName": lab.dns_domain,
            "NetBiosName": lab.netbios,
            "MachineAccountName": "WebApp01",
        },
        "ActiveDirectoryConfig": {
            "GroupManagedServiceAccounts": [
                {"Name": "WebApp01", "Scope": lab.dns_domain},
                *({"Name": name, "Scope": scope} for name, scope in others),
            ]
        },
    }
    config = load_config(lab.config_path)
    examination = Examination(
        config=config,
        krb5_conf=krb5_conf,
        identity=MachineKeytab(config.keytab),
        spec_source=lambda: json.dumps(document).encode(),
        only_directory=True,
    )
    try:
        return {result.step.key: result for result in examination.results()}
    finally:
        examination.close()


@pytest.mark.parametrize("by_netbios_name", [False, True])
def test_an_account_of_another_domain_is_looked_at(
    lab: Lab, other: Lab, krb5_conf: AgentKrb5Conf, *, by_netbios_name: bool
) -> None:
    scope = other.netbios if by_netbios_name else other.dns_domain
    found = examine(lab, krb5_conf, (TRUSTED_ACCOUNT, scope))
    name = f"{TRUSTED_ACCOUNT}@{scope}"
    assert {f"other-domain {scope}", f"account {name}", f"spn {name}"} <= found.keys()
    failed = {k: r.text for k, r in found.items() if r.state in {State.FAILED, State.SKIPPED}}
    assert failed == {}
    assert f"{TRUSTED_ACCOUNT}$@{other.realm}" in found[f"ticket {name}"].text


@pytest.mark.parametrize(
    ("types", "code"), [(4, "account-rc4-only"), (0x80000000, "account-enctypes-unusable")]
)
def test_its_encryption_types_are_looked_at(
    lab: Lab, other: Lab, krb5_conf: AgentKrb5Conf, types: int, code: str
) -> None:
    dn = f"CN={TRUSTED_ACCOUNT},CN=Managed Service Accounts,{other.domain_dn}"
    attribute = "msDS-SupportedEncryptionTypes"
    database = ["ldbmodify", "-H", str(other.directory / "dc/private/sam.ldb")]
    value = types - (1 << 32) if types >= 1 << 31 else types
    ldif = f"dn: {dn}\nchangetype: modify\nreplace: {attribute}\n"
    run_tool(database, f"{ldif}{attribute}: {value}\n")
    try:
        found = examine(lab, krb5_conf, (TRUSTED_ACCOUNT, other.dns_domain))
    finally:
        run_tool(database, ldif)
    step = found[f"account {TRUSTED_ACCOUNT}@{other.dns_domain}"]
    assert [problem.code for problem in step.problems] == [code]
    assert step.state is State.WARNING


def test_what_is_wrong_with_it_hides_nothing_else(
    lab: Lab, other: Lab, krb5_conf: AgentKrb5Conf
) -> None:
    found = examine(
        lab,
        krb5_conf,
        ("Nobody", other.dns_domain),
        (TRUSTED_ACCOUNT, other.dns_domain),
        ("Someone", "NOWHERE"),
    )
    assert found[f"account Nobody@{other.dns_domain}"].problems[0].code == "account-not-found"
    assert found[f"ticket {TRUSTED_ACCOUNT}@{other.dns_domain}"].state is State.OK
    assert found["other-domain NOWHERE"].problems[0].code == "domain-not-trusted"
    assert found["account Someone@NOWHERE"].state is State.SKIPPED
    assert found["spn WebApp01"].state is State.OK
