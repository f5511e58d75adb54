"""Making a lab: the domain, its host, its gMSAs and what its users need."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from credspec.errors import CredspecError, UsageError
from credspec.lab import postgres
from credspec.lab.accounts import account_commands
from credspec.lab.dns_records import add_host
from credspec.lab.domain import (
    DEFAULT_NAME,
    NAME,
    RUN_ROOT,
    STATE_ROOT,
    Lab,
    open_lab,
    run_tool,
    valid,
)
from credspec.lab.domain_cache import cache_directory, cached_domain
from credspec.lab.namespaces import Plan, command_in, mount_tmpfs
from credspec.lab.network import LabNetwork, reserved_subnet
from credspec.lab.samba_commands import run_commands

HOST_ACCOUNT: Final = "LABHOST$"
READABLE: Final = ("WebApp01", "WebApp02", "WebApp03", "WebApp04", "WebApp05")
"""gMSAs whose passwords the lab's host may read; WebApp02's through a group in a group."""
FORBIDDEN: Final = "Forbidden01"
"""A gMSA whose password the lab's host may not read."""
DISABLED: Final = "Disabled01"
"""A gMSA whose password the lab's host may read, but that is disabled."""
DAILY: Final = "WebApp05"
"""The gMSA whose password changes every day; the others' every 30 days."""

SHARE: Final = "data"
"""A share of the domain controller that every account of the domain may read and write."""

_CACHED: Final = ("admin-password", "dc", "host.keytab", "postgres", "postgres.keytab", SHARE)
"""What a lab's directory holds of its domain and its services: what its copies start with."""

_REALM: Final = re.compile(r"[A-Z0-9](?:[A-Z0-9-]{0,30}[A-Z0-9])?(?:\.[A-Z0-9-]{1,31})+")
_NETBIOS: Final = re.compile(r"[A-Z0-9](?:[A-Z0-9-]{0,13}[A-Z0-9])?")

Progress = Callable[[str], None]
"""Receives a line for each step of what takes its time."""


def up(
    name: str = DEFAULT_NAME,
    *,
    realm: str = "EXAMPLE.TEST",
    netbios: str | None = None,
    progress: Progress = lambda _: None,
    populate: Callable[[Lab], None] | None = None,
    use_cache: bool = True,
) -> Lab:
    """Bring a lab up and return it; one that is up already is returned as it is.

    `populate` makes other accounts than the usual ones, before the domain controller starts; then
    there is no PostgreSQL either. If it fails or is interrupted, nothing is left. With `use_cache`,
    the domain is a copy of one that was provisioned in the last hours, with the same keys, if there
    is one (see `domain_cache`).

    Raises:
        UsageError: `lab-name-invalid`, `lab-realm-invalid`, `lab-needs-root`,
            `lab-program-missing`.
        CredspecError: of the step that failed.
    """
    directory = STATE_ROOT / valid(name, NAME, "name")
    realm = valid(realm.upper(), _REALM, "realm")
    netbios = valid((netbios or realm.partition(".")[0]).upper(), _NETBIOS, "NetBIOS name")
    _require_programs()
    with contextlib.suppress(CredspecError):
        existing = open_lab(name)
        if existing.is_running():
            return existing
        progress("Removing a lab that did not end well")
        existing.down()
    shutil.rmtree(directory, ignore_errors=True)
    with contextlib.ExitStack() as reserved:
        lab = Lab(
            name=name,
            realm=realm,
            netbios=netbios,
            network=LabNetwork.of(name, reserved.enter_context(reserved_subnet())),
            directory=directory,
            run_directory=RUN_ROOT / name,
        )
        try:
            _connect(lab)
            reserved.close()
            _build(lab, progress, populate, use_cache=use_cache)
        except BaseException:
            lab.down()
            raise
    return lab


def _connect(lab: Lab) -> None:
    """Make the lab's directory and its network."""
    # Others may pass through, for PostgreSQL's sake; what is secret has a mode of its own.
    lab.directory.mkdir(mode=0o711, parents=True)
    subnet = ipaddress.IPv4Network(f"{lab.network.host_address}/30", strict=False)
    (lab.directory / "lab.json").write_text(
        json.dumps({"realm": lab.realm, "netbios": lab.netbios, "subnet": str(subnet)}), "utf-8"
    )
    lab.network.up()


def _build(
    lab: Lab, progress: Progress, populate: Callable[[Lab], None] | None, *, use_cache: bool
) -> None:
    password = secrets.token_urlsafe(18) + "aA1!"
    _write_files(lab, password)
    kind = "furnished" if populate is None else "bare"
    with cached_domain(lab, kind, root=cache_directory() if use_cache else None) as cache:
        if not cache.restore(lab):
            progress(f"Provisioning the domain {lab.realm}")
            _provision(lab, password)
            if populate is None:
                _furnish(lab, progress)
            cache.begin(lab, _CACHED)
            _start(lab, progress, populate)
            cache.finish(lab)
            return
    progress(f"Copied the domain {lab.realm} from the cache")
    _start(lab, progress, populate)


def _start(lab: Lab, progress: Progress, populate: Callable[[Lab], None] | None) -> None:
    if populate is not None:
        populate(lab)
    progress("Starting the domain controller")
    lab.start_postgres()
    lab.start_dc()
    shutil.copyfile(lab.directory / "dc/private/tls/ca.pem", lab.directory / "ca.pem")


def _furnish(lab: Lab, progress: Progress) -> None:
    """Make what the usual lab holds."""
    progress("Making the host, the gMSAs and the service accounts")
    _populate(lab)
    _share(lab)
    for name in ("db", "web"):
        add_host(lab, name)
    programs = postgres.find_programs()
    if programs is None:
        progress("PostgreSQL is not installed: going on without it")
    else:
        progress("Making the PostgreSQL database")
        postgres.initialise(
            programs,
            lab.directory / "postgres",
            realm=lab.realm,
            roles=[f"{account}$" for account in READABLE],
            keytab=lab.directory / "postgres.keytab",
        )


def _write_files(lab: Lab, password: str) -> None:
    domain, address = lab.dns_domain, lab.network.address
    own_name = socket.gethostname()
    files = {
        "admin-password": password + "\n",
        "resolv.conf": f"nameserver {address}\noptions timeout:2 attempts:2\n",
        "hosts": (
            "127.0.0.1 localhost\n"
            # Libraries look up the host's own name, which the domain's DNS does not know.
            f"127.0.1.1 {own_name}\n"
            f"{address} {lab.dc_host} dc1\n{address} db.{domain} web.{domain}\n"
        ),
        "krb5.conf": (
            "[libdefaults]\n"
            f" default_realm = {lab.realm}\n"
            " dns_lookup_kdc = false\n rdns = false\n dns_canonicalize_hostname = false\n"
        )
        + lab.realm_stanzas,
        "config.toml": (
            f'run_directory = "{lab.run_directory}"\n'
            f'spec_directory = "{lab.specs_directory}"\n'
            f'audit_log = "{lab.directory}/audit.jsonl"\n'
            "[host_identity]\n"
            f'keytab = "{lab.host_keytab}"\nprincipal = "{HOST_ACCOUNT}@{lab.realm}"\n'
            "[ldap]\n"
            f'ca_file = "{lab.directory / "ca.pem"}"\n'
            '[policy]\nspec_sources = ["file", "raw"]\nkeytabs = ["*"]\n'
        ),
    }
    for name, content in files.items():
        path = lab.directory / name
        path.touch(mode=0o600 if name == "admin-password" else 0o644)
        path.write_text(content, "utf-8")
    lab.specs_directory.mkdir(mode=0o755)
    lab.run_directory.mkdir(mode=0o755, parents=True)
    # What systemd makes of a host's /run, whatever it is here.
    mount_tmpfs(lab.run_directory, mode=0o755)
    # The agent runs in a mount namespace of its own, the runtime does not: what the runtime mounts
    # for a container must reach the agent, as it does under systemd.
    for name, mode in (("leases", 0o700), ("process-leases", 0o711), ("volumes", 0o700)):
        directory = lab.run_directory / name
        directory.mkdir(mode=mode)
        mount_tmpfs(directory, mode=mode, shared=True)


def _provision(lab: Lab, password: str) -> None:
    command = ["samba-tool", "domain", "provision"]
    command += [f"--realm={lab.realm}", f"--domain={lab.netbios}", f"--adminpass={password}"]
    command += ["--server-role=dc", "--dns-backend=SAMBA_INTERNAL", "--host-name=dc1"]
    command += ["--function-level=2016", "--option=ad dc functional level=2016"]
    command += [f"--host-ip={lab.network.address}", "--quiet"]
    command += [f"--targetdir={lab.directory / 'dc'}"]
    command += ["--option=interfaces=eth0 lo", "--option=bind interfaces only=yes"]
    (lab.directory / "dc").mkdir(mode=0o700)
    run_tool(command_in(Plan(netns=lab.network.namespace, binds=lab.etc_files()), command))
    keep_to_itself(lab.smb_conf)
    leave_records_alone(lab.smb_conf)


def keep_to_itself(smb_conf: Path) -> None:
    """Let a controller neither ask name servers outside the lab nor write the system's log."""
    lines = smb_conf.read_text("utf-8").splitlines()
    # No forwarder: a name outside the lab is unknown at once, not after a time-out.
    kept = [line for line in lines if not re.match(r"\s*(dns forwarder|log file|max log)", line)]
    log = f"\tlog file = {smb_conf.parent.parent}/log.%m\n\tmax log size = 1000"
    text = "\n".join(kept).replace("[global]", f"[global]\n{log}", 1)
    smb_conf.write_text(text + "\n", "utf-8")


def leave_records_alone(smb_conf: Path) -> None:
    """Let a controller start without looking after its DNS records.

    Provisioning made them, and `move_addresses` changes them; the program that compares them at
    each start takes as much of the processor as the controller itself.
    """
    setting = "\tdns update command = /bin/true\n"
    text = smb_conf.read_text("utf-8").replace("[global]\n", f"[global]\n{setting}", 1)
    smb_conf.write_text(text, "utf-8")


def _populate(lab: Lab) -> None:
    domain = lab.dns_domain
    host_group = f"CN=WebAppHosts,CN=Users,{lab.domain_dn}"
    commands: list[tuple[str, ...]] = [*_computer(HOST_ACCOUNT)]
    for group, member in (("LabHosts", HOST_ACCOUNT), ("WebAppHosts", "LabHosts")):
        commands += [("group", "add", group), ("group", "addmembers", group, member)]
    for account in (*READABLE, FORBIDDEN, DISABLED):
        reader = host_group if account == "WebApp02" else HOST_ACCOUNT
        commands += account_commands(
            domain,
            account,
            readers=() if account == FORBIDDEN else (reader,),
            interval_days=1 if account == DAILY else 30,
            enabled=account != DISABLED,
        )
    # Not one of the lab's passwords as an argument: one that starts with a dash would be an option.
    commands += [("user", "create", "alice", "--random-password"), *_computer("DBHOST$")]
    for name, account in (
        (f"postgres/db.{domain}", "DBHOST$"),
        (f"HTTP/web.{domain}", "WebApp01$"),
        (f"MSSQLSvc/db.{domain}:1433", "WebApp01$"),
        (f"ldap/dc1.{domain}", "DC1$"),
    ):
        commands.append(("spn", "add", name, account))
    run_commands(lab, commands)
    _declare_aes(lab, "DBHOST")
    keytabs = {"host.keytab": HOST_ACCOUNT, "postgres.keytab": f"postgres/db.{domain}"}
    export = ("domain", "exportkeytab")
    run_commands(
        lab,
        [
            (*export, str(lab.directory / keytab), f"--principal={principal}")
            for keytab, principal in keytabs.items()
        ],
    )
    for keytab in keytabs:
        (lab.directory / keytab).chmod(0o600)


def _computer(account: str) -> Iterator[tuple[str, ...]]:
    """Yield the commands that make a computer with a password."""
    yield ("computer", "create", account.removesuffix("$"))
    yield ("user", "setpassword", account, f"--newpassword={secrets.token_urlsafe(24)}aA1!")
    yield ("user", "enable", account)


def _share(lab: Lab) -> None:
    """Let the controller, which must not run yet, serve a share that all accounts may write."""
    directory = lab.directory / SHARE
    directory.mkdir()
    directory.chmod(0o1777)
    with lab.smb_conf.open("a", encoding="utf-8") as configuration:
        configuration.write(f"\n[{SHARE}]\n\tpath = {directory}\n\tread only = no\n")


def _declare_aes(lab: Lab, account: str) -> None:
    """Let the KDC make AES tickets for a service whose host never registered that it may."""
    dn = f"CN={account},CN=Computers,{lab.domain_dn}"
    ldif = f"dn: {dn}\nchangetype: modify\nreplace: msDS-SupportedEncryptionTypes\n"
    ldif += "msDS-SupportedEncryptionTypes: 24\n"
    run_tool(["ldbmodify", "-H", lab.database], ldif)


def _require_programs() -> None:
    if os.geteuid() != 0:
        raise UsageError.of("lab-needs-root", "a lab needs root", where="lab")
    packages = {
        "samba": "samba samba-ad-dc samba-ad-provision",
        "samba-tool": "samba",
        "ldbmodify": "ldb-tools",
        "ldbadd": "ldb-tools",
        "ldbsearch": "ldb-tools",
        "ldapsearch": "ldap-utils",
        "ip": "iproute2",
    }
    missing = [name for name in packages if shutil.which(name) is None]
    if missing:
        raise UsageError.of(
            "lab-program-missing",
            f"not installed: {', '.join(missing)}",
            where="lab",
            expected="Samba 4.21 or newer, as domain controller",
            remedy="apt-get install "
            + " ".join(dict.fromkeys(packages[name] for name in missing))
            + " (on Debian 12 from bookworm-backports)",
        )
