"""Hosts that adcli and net really joined: password changes while leases live."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import krb5
import pytest

from credspec.cli.new import NewSpecRequest, make_credential_spec
from credspec.kerberos.keytab_contents import keytab_versions
from credspec.kerberos.krb5_conf import AgentKrb5Conf
from credspec.lab.domain import Lab
from credspec.session.host_identity import MachineKeytab
from support.agent.agent_process import BIN, AgentProcess

ACCOUNTS = ("WebApp01", "WebApp03", "WebApp04")


@dataclass
class Joined:
    """A host by its name and keytab; `change` lets the tool change the machine password."""

    name: str
    keytab: Path
    change: Callable[[], None]


def tool(*command: str, given: str = "") -> None:
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr


def adcli(lab: Lab, directory: Path) -> Joined:
    keytab = directory / "krb5.keytab"
    common = [f"--domain={lab.dns_domain}", f"--domain-controller={lab.dc_host}"]
    common += ["--computer-name=ADCLI1", f"--host-fqdn=adcli1.{lab.dns_domain}"]
    common += [f"--host-keytab={keytab}"]
    join = ["adcli", "join", *common, "--login-user=Administrator", "--stdin-password"]
    tool(*join, given=lab.admin_password)
    update = ["adcli", "update", *common, "--computer-password-lifetime=0"]
    return Joined("ADCLI1$", keytab, lambda: tool(*update))


def net(lab: Lab, directory: Path) -> Joined:
    keytab = directory / "krb5.keytab"
    configuration = directory / "smb.conf"
    own = ("private dir", "lock directory", "state directory", "cache directory", "pid directory")
    configuration.write_text(
        f"[global]\nworkgroup = {lab.netbios}\nrealm = {lab.realm}\nsecurity = ads\n"
        "netbios name = NETADS1\nkerberos method = secrets and keytab\n"
        f"sync machine password to keytab = {keytab}:account_name:sync_spns:sync_kvno:"
        "machine_password\n" + "".join(f"{name} = {directory}\n" for name in own)
    )
    password = directory / "password"
    password.write_text(lab.admin_password)
    command = ["net", "-s", str(configuration), "ads"]
    tool(
        *("env", f"PASSWD_FILE={password}", *command, "join", "--no-dns-updates"),
        *("-U", "Administrator", "-S", lab.dc_host),
    )
    return Joined("NETADS1$", keytab, lambda: tool(*command, "changetrustpw"))


@pytest.fixture(params=[adcli, net], ids=["adcli update", "net ads changetrustpw"])
def joined(
    request: pytest.FixtureRequest, lab: Lab, krb5_conf: AgentKrb5Conf, tmp_path: Path
) -> Iterator[Joined]:
    del krb5_conf
    program = request.param.__name__
    assert shutil.which(program), f"{program} is not installed: packaging/install-debian-packages"
    found: Joined = request.param(lab, tmp_path)
    for account in ACCOUNTS:
        lab.samba_tool(
            *("service-account", "group-msa-membership", "add"),
            *(f"--name={account}", f"--principal={found.name}"),
        )
    yield found
    for account in ACCOUNTS:
        lab.samba_tool(
            *("service-account", "group-msa-membership", "remove"),
            *(f"--name={account}", f"--principal={found.name}"),
        )
    lab.samba_tool("computer", "delete", found.name.removesuffix("$"))


def test_a_logon_follows_the_keytab(joined: Joined) -> None:
    identity = MachineKeytab(
        joined.keytab, cache="MEMORY:joined"
    )  # the default one is the lab host's
    assert identity.name.startswith(f"{joined.name}@")
    identity.log_on()
    for _ in range(2):  # one password is valid beside its predecessor, two are not
        before = max(keytab_versions(joined.keytab, identity.name))
        joined.change()
        assert max(keytab_versions(joined.keytab, identity.name)) > before
        identity.forget()
        identity.log_on()


def test_an_agent_goes_on_with_its_leases(joined: Joined, lab: Lab, tmp_path: Path) -> None:
    directory = tmp_path / "agent"
    directory.mkdir()
    agent = AgentProcess(lab, directory)
    agent.config.write_text(
        agent.config.read_text().replace(str(lab.host_keytab), str(joined.keytab))
    )
    for account in ACCOUNTS:
        path = str(directory / f"specs/{account}.json")
        make_credential_spec(NewSpecRequest(account_name=account, path=path))
    try:
        agent.start()
        for number, account in enumerate(ACCOUNTS):
            agent.mount(number)
            agent.put(number, f"file://{account}.json")
            assert principal(agent.lease_directory(number)) == f"{account}$@{lab.realm}"
            joined.change()
            if account == ACCOUNTS[1]:
                # Its next run has no ticket of the host and takes the new key.
                agent.end()
                agent.start()
            assert len(agent.lease_containers()) == number + 1
        shown = subprocess.run(
            [str(BIN / "credspec"), "check", "--output", "json"],
            env={**os.environ, "CREDSPEC_CONFIG": str(agent.config)},
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        assert '"step": "join"' in shown
        assert '"code": "host-keytab-version"' not in shown
        assert '"code": "identity-not-renewed"' not in shown
    finally:
        agent.close()


def principal(directory: Path) -> str:
    context = krb5.init_context()
    cache = krb5.cc_resolve(context, f"FILE:{directory / 'krb5cc'}".encode())
    return (krb5.cc_get_principal(context, cache).name or b"").decode()
