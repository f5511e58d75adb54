"""Hosts that Samba's `net` and realmd joined, and needrestart after an upgrade of libkrb5."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from credspec.lab.client_image import write_client_image
from credspec.lab.domain import Lab
from support.machine.package_machine import LEASES, PackageMachine

# Not for QUICK=1: each release needs a root file system of its own, with MORE; see conftest.
pytestmark = pytest.mark.slow
MORE = (
    *("samba-common-bin", "needrestart"),
    *("realmd", "sssd-ad", "sssd-tools", "libnss-sss", "libpam-sss"),
)
AGENT = "credspec-agent.service"
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


@contextmanager
def allowed(lab: Lab, name: str) -> Iterator[None]:
    """A computer of the domain that may read the account's password, until the block ends."""
    lab.samba_tool(
        *("service-account", "group-msa-membership", "add"),
        *("--name=WebApp01", f"--principal={name}$"),
    )
    try:
        yield
    finally:
        lab.samba_tool("computer", "delete", name)


def set_up(host: PackageMachine, package: Path) -> None:
    """Install the package, start the services, register Docker, make a spec and an image."""
    with (host.root / "srv/image.tar").open("wb") as file:
        write_client_image(file)
    host.install(package)
    host.run("systemctl", "start", "docker.service")
    host.run("docker", "import", "/srv/image.tar", "kerberos-client")
    host.run("credspec", "setup", "agent", "docker")
    host.run("credspec", "new", "WebApp01", "--file-name", "www.json")


@pytest.fixture
def host(
    lab: Lab, boot: Callable[..., PackageMachine], packages: dict[str, Path]
) -> Iterator[PackageMachine]:
    """A host that `net ads join` has joined, set up, with a spec."""
    name = "NETHOST1"
    found = boot(joined=False, more=MORE)
    found.run("hostname", name.lower())
    names = {"netbios": lab.netbios, "realm": lab.realm, "name": name}
    (found.root / "etc/samba/smb.conf").write_text(SMB_CONF.format_map(names))
    join = ("net", "ads", "join", "--no-dns-updates", "-U", "Administrator", "-S", lab.dc_host)
    found.run("env", "PASSWD_FD=0", *join, given=f"{lab.admin_password}\n")
    with allowed(lab, name):
        set_up(found, packages["credspec"])
        yield found


def test_a_host_that_realmd_joined(
    lab: Lab, boot: Callable[..., PackageMachine], packages: dict[str, Path]
) -> None:
    """In realmd's installer mode, which needs no D-Bus and does not start SSSD."""
    name = "realmhost1"
    host = boot(joined=False, more=MORE)
    host.run("hostname", name)
    join = ("realm", "--install=/", "join", "--verbose", "--client-software=sssd")
    join += ("--membership-software=adcli", "--user=Administrator", lab.dns_domain)
    host.run(*join, given=f"{lab.admin_password}\n")
    with allowed(lab, name):
        set_up(host, packages["credspec"])
        shown = host.run("credspec", "check", "www.json").stdout
        assert "joined by realmd with adcli, used by SSSD" in shown
        assert "FAIL" not in shown
        shown = host.run(*RUN, "--rm", "kerberos-client", "klist").stdout
        assert f"Default principal: WebApp01$@{lab.realm}" in shown


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
