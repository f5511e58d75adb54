"""A host that Samba's `net` joined, and needrestart on it after an upgrade of libkrb5."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from credspec.lab.client_image import write_client_image
from credspec.lab.domain import Lab
from support.machine.package_machine import LEASES, RELEASES, PackageMachine, base

# Not for QUICK=1: each release needs a root file system of its own.
pytestmark = pytest.mark.slow
MORE = ("samba-common-bin", "needrestart")
NAME, AGENT = "NETHOST1", "credspec-agent.service"
SMB_CONF = """\
[global]
workgroup = {netbios}
realm = {realm}
security = ads
netbios name = {name}
kerberos method = secrets and keytab
sync machine password to keytab = \
/etc/krb5.keytab:account_name:sync_spns:sync_kvno:machine_password
"""
RUN = (
    *("docker", "--context", "credspec", "run", "--network=none"),
    *("--security-opt", "credentialspec=file://www.json"),
)
# As an upgrade of the package does: another file of the same name.
REPLACE = (
    'file=$(realpath /usr/lib/*/libkrb5.so.3); cp -a "$file" "$file.new"; mv "$file.new" "$file"'
)


@pytest.fixture(scope="session")
def prepared(prepared: None) -> None:
    """Made while this machine's own names of hosts are in force."""
    for release in RELEASES:
        base(release, MORE)


@pytest.fixture
def host(
    lab: Lab, boot: Callable[..., PackageMachine], packages: dict[str, Path]
) -> Iterator[PackageMachine]:
    """A host that `net ads join` has joined, set up, with a spec."""
    found = boot(joined=False, more=MORE)
    found.run("hostname", NAME.lower())
    names = {"netbios": lab.netbios, "realm": lab.realm, "name": NAME}
    (found.root / "etc/samba/smb.conf").write_text(SMB_CONF.format_map(names))
    with (found.root / "srv/image.tar").open("wb") as file:
        write_client_image(file)
    join = ("net", "ads", "join", "--no-dns-updates", "-U", "Administrator", "-S", lab.dc_host)
    found.run("env", "PASSWD_FD=0", *join, given=f"{lab.admin_password}\n")
    lab.samba_tool(
        *("service-account", "group-msa-membership", "add"),
        *("--name=WebApp01", f"--principal={NAME}$"),
    )
    found.install(packages["credspec"])
    found.run("systemctl", "start", "docker.service")
    found.run("docker", "import", "/srv/image.tar", "kerberos-client")
    found.run("credspec", "setup", "agent", "docker")
    found.run("credspec", "new", "WebApp01", "--file-name", "www.json")
    yield found
    lab.samba_tool("computer", "delete", NAME)


def test_needrestart_restarts_the_agent_of_a_host_that_net_joined(
    host: PackageMachine, lab: Lab
) -> None:
    assert "FAIL" not in host.run("credspec", "check", "www.json").stdout
    host.run(*RUN, "--detach", "--name=c1", "kerberos-client", "sleep", "99999")
    tickets = host.run("sh", "-c", f"sha256sum {LEASES}/*/krb5cc").stdout
    host.run("sh", "-ec", REPLACE)
    assert f"NEEDRESTART-SVC: {AGENT}" in host.run("needrestart", "-b", "-r", "l").stdout
    pid = host.booted.show(AGENT, "MainPID")
    host.run("needrestart", "-r", "a")
    host.wait_until_active(AGENT)
    assert host.booted.show(AGENT, "MainPID") not in {pid, "0"}
    assert f"NEEDRESTART-SVC: {AGENT}" not in host.run("needrestart", "-b", "-r", "l").stdout
    assert host.run("sh", "-c", f"sha256sum {LEASES}/*/krb5cc").stdout == tickets
    shown = host.run("docker", "exec", "c1", "klist").stdout
    assert f"Default principal: WebApp01$@{lab.realm}" in shown
    host.run("docker", "rm", "--force", "c1")
