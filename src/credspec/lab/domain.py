"""A lab: a real Samba domain controller with a joined host, gMSAs and a Kerberos service."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from credspec.errors import CredspecError, NotFoundError, UsageError
from credspec.lab import postgres
from credspec.lab.namespaces import Plan, command_in, mount_shared_tmpfs, unmount_below
from credspec.lab.network import LabNetwork, free_subnet

STATE_ROOT: Final = Path("/var/lib/credspec/labs")
RUN_ROOT: Final = Path("/run/credspec-labs")
DEFAULT_NAME: Final = "default"

HOST_ACCOUNT: Final = "LABHOST$"
READABLE: Final = ("WebApp01", "WebApp02", "WebApp03", "WebApp04", "WebApp05")
"""gMSAs whose passwords the lab's host may read; WebApp02's through a group in a group."""
FORBIDDEN: Final = "Forbidden01"
"""A gMSA whose password the lab's host may not read."""
DISABLED: Final = "Disabled01"
"""A gMSA whose password the lab's host may read, but that is disabled."""
DAILY: Final = "WebApp05"
"""The gMSA whose password changes every day; the others' every 30 days."""

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,18}[a-z0-9])?")
_REALM: Final = re.compile(r"[A-Z0-9](?:[A-Z0-9-]{0,30}[A-Z0-9])?(?:\.[A-Z0-9-]{1,31})+")
_NETBIOS: Final = re.compile(r"[A-Z0-9](?:[A-Z0-9-]{0,13}[A-Z0-9])?")
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 20.0
_FAKETIME: Final = "/usr/lib/{machine}-linux-gnu/faketime/libfaketimeMT.so.1"

Progress = Callable[[str], None]
"""Receives a line for each step of what takes its time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """A lab that is up, or was; made by `up` or `open_lab`.

    `directory` holds the domain and what its users need, `run_directory` the sockets and leases.
    """

    name: str
    realm: str
    netbios: str
    network: LabNetwork
    directory: Path
    run_directory: Path

    @property
    def dns_domain(self) -> str:
        """The domain's DNS name."""
        return self.realm.lower()

    @property
    def dc_host(self) -> str:
        """The DNS name of the domain controller."""
        return f"dc1.{self.dns_domain}"

    @property
    def dc_address(self) -> str:
        """The address of the domain controller, its DNS server and PostgreSQL."""
        return self.network.address

    @property
    def config_path(self) -> Path:
        """The configuration of an agent of this lab."""
        return self.directory / "config.toml"

    @property
    def specs_directory(self) -> Path:
        """The spec directory of an agent of this lab."""
        return self.directory / "specs"

    @property
    def host_keytab(self) -> Path:
        """The machine keytab of the joined host."""
        return self.directory / "host.keytab"

    @property
    def krb5_conf(self) -> Path:
        """A krb5.conf for the realm."""
        return self.directory / "krb5.conf"

    @property
    def admin_password(self) -> str:
        """The password of the domain's Administrator."""
        return (self.directory / "admin-password").read_text("utf-8").strip()

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which programs find this lab."""
        return {
            "CREDSPEC_LAB": self.name,
            "CREDSPEC_CONFIG": str(self.config_path),
            "KRB5_CONFIG": str(self.krb5_conf),
        }

    def plan(self) -> Plan:
        """Return the surroundings of a program on the lab's joined host."""
        return Plan(binds=self._etc())

    def exec_argv(self, argv: list[str]) -> list[str]:
        """Return the command that runs `argv` as on the lab's joined host, environment included."""
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        return ["env", *variables, *command_in(self.plan(), argv)]

    def samba_tool(self, *arguments: str) -> str:
        """Run samba-tool on the domain's database and return what it prints.

        Raises:
            CredspecError: `lab-samba-tool`.
        """
        return _run(["samba-tool", *arguments, *self._database(arguments)])

    def is_running(self) -> bool:
        """Return whether the domain controller runs."""
        return self._pid("dc") is not None

    def start_dc(self, *, offset_seconds: int = 0) -> None:
        """Start the domain controller and wait until it answers; its clock may be off.

        Raises:
            CredspecError: `lab-dc-start`.
        """
        environment = dict(os.environ)
        if offset_seconds:
            library = _FAKETIME.format(machine=os.uname().machine)
            environment |= {
                "LD_PRELOAD": library,
                "FAKETIME": f"{offset_seconds:+d}s",
                # The event loop's timers run on the monotonic clock.
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        plan = Plan(
            netns=self.network.namespace,
            binds=self._etc(),
            tmpfs=("/run/samba",),
            own_processes=True,
        )
        samba = ["samba", "-i", "--no-process-group", "-s", str(self._smb_conf)]
        self._start("dc", command_in(plan, samba), environment)
        self._wait_until_answers()

    def stop_dc(self) -> None:
        """Stop the domain controller."""
        self._stop("dc")

    def pause_dc(self) -> None:
        """Freeze the domain controller: it takes connections and never answers."""
        self._signal_all("dc", signal.SIGSTOP)

    def resume_dc(self) -> None:
        """Let a frozen domain controller go on."""
        self._signal_all("dc", signal.SIGCONT)

    def start_postgres(self) -> bool:
        """Start PostgreSQL if it is installed; return whether it is."""
        programs = postgres.find_programs()
        if programs is None or not (self.directory / "postgres").is_dir():
            return False
        plan = Plan(
            netns=self.network.namespace,
            binds=self._etc(),
            own_processes=True,
            user=postgres.USER,
        )
        command = postgres.server_command(
            programs,
            self.directory / "postgres",
            address=self.network.address,
            keytab=self.directory / "postgres.keytab",
        )
        self._start("postgres", command_in(plan, command), dict(os.environ))
        _wait(lambda: _connects(self.network.address, 5432), "PostgreSQL", self._log("postgres"))
        return True

    def down(self) -> None:
        """Remove the lab: processes, mounts, network, files. What is gone already is fine."""
        for service in ("postgres", "dc"):
            self._stop(service)
        unmount_below(self.run_directory)
        self.network.down()
        shutil.rmtree(self.run_directory, ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)
        for root in (RUN_ROOT, STATE_ROOT, STATE_ROOT.parent):
            with contextlib.suppress(OSError):
                root.rmdir()  # only when the last lab has gone

    @property
    def _smb_conf(self) -> Path:
        return self.directory / "dc" / "etc" / "smb.conf"

    def _database(self, arguments: tuple[str, ...]) -> list[str]:
        options = ["-s", str(self._smb_conf)]
        # The commands on the domain as a whole find the database through smb.conf.
        if arguments[0] != "domain" or arguments[1:2] == ("kds",):
            options += ["-H", str(self.directory / "dc" / "private" / "sam.ldb")]
        return options

    def _etc(self) -> dict[str, str]:
        return {f"/etc/{name}": str(self.directory / name) for name in ("resolv.conf", "hosts")}

    def _log(self, service: str) -> Path:
        return self.directory / f"{service}.log"

    def _start(self, service: str, command: list[str], environment: dict[str, str]) -> None:
        if self._pid(service) is not None:
            return
        # Not Popen: the service outlives this process, and nobody here waits for it.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(self._log(service)), flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        pid = os.posix_spawnp(command[0], command, environment, file_actions=actions, setsid=True)
        record = {"pid": pid, "started": _start_time(pid)}
        (self.directory / f"{service}.pid").write_text(json.dumps(record), "utf-8")

    def _pid(self, service: str) -> int | None:
        """Return a service's process, unless it has ended and its number is another's."""
        try:
            record = json.loads((self.directory / f"{service}.pid").read_text("utf-8"))
            pid = int(record["pid"])
            return pid if _start_time(pid) == record["started"] else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _stop(self, service: str) -> None:
        pid = self._pid(service)
        if pid is not None:
            processes = _processes_below(pid)
            # Killing the first process of a pid namespace ends all in it, frozen or not.
            for process in [pid, *processes]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
            _wait(
                lambda: not any(_start_time(p) for p in processes),
                f"the end of {service}",
                self._log(service),
                _STOP_SECONDS,
            )
        (self.directory / f"{service}.pid").unlink(missing_ok=True)

    def _signal_all(self, service: str, number: signal.Signals) -> None:
        pid = self._pid(service)
        for process in _processes_below(pid) if pid is not None else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    def _wait_until_answers(self) -> None:
        command = ["ldapsearch", "-x", "-LLL", "-o", "nettimeout=2", "-s", "base", "-b", ""]
        command += ["-H", f"ldap://{self.network.address}", "defaultNamingContext"]
        prefix = command_in(Plan(netns=self.network.namespace, binds=self._etc()), command)

        def answers() -> bool:
            found = subprocess.run(prefix, capture_output=True, check=False)
            return b"defaultNamingContext:" in found.stdout

        _wait(
            lambda: (
                all(_connects(self.network.address, port) for port in (53, 88, 389, 636))
                and answers()
            ),
            "the domain controller",
            self._log("dc"),
        )


def up(
    name: str = DEFAULT_NAME,
    *,
    realm: str = "EXAMPLE.TEST",
    netbios: str | None = None,
    progress: Progress = lambda _: None,
) -> Lab:
    """Bring a lab up and return it; one that is up already is returned as it is.

    If it fails or is interrupted, nothing is left.

    Raises:
        UsageError: `lab-name-invalid`, `lab-realm-invalid`, `lab-needs-root`,
            `lab-program-missing`.
        CredspecError: of the step that failed.
    """
    directory = STATE_ROOT / _valid(name, _NAME, "name")
    realm = _valid(realm.upper(), _REALM, "realm")
    netbios = _valid((netbios or realm.partition(".")[0]).upper(), _NETBIOS, "NetBIOS name")
    _require_programs()
    with contextlib.suppress(CredspecError):
        existing = open_lab(name)
        if existing.is_running():
            return existing
        progress("Removing a lab that did not end well")
        existing.down()
    shutil.rmtree(directory, ignore_errors=True)
    lab = Lab(
        name=name,
        realm=realm,
        netbios=netbios,
        network=LabNetwork.of(name, free_subnet()),
        directory=directory,
        run_directory=RUN_ROOT / name,
    )
    try:
        _build(lab, progress)
    except BaseException:
        lab.down()
        raise
    return lab


def open_lab(name: str = DEFAULT_NAME) -> Lab:
    """Return a lab that was brought up, running or not.

    Raises:
        NotFoundError: `lab-not-found`.
    """
    path = STATE_ROOT / _valid(name, _NAME, "name") / "lab.json"
    try:
        raw = json.loads(path.read_text("utf-8"))
        network = LabNetwork.of(name, ipaddress.IPv4Network(raw["subnet"]))
        return Lab(
            name=name,
            realm=raw["realm"],
            netbios=raw["netbios"],
            network=network,
            directory=path.parent,
            run_directory=RUN_ROOT / name,
        )
    except (OSError, ValueError, KeyError):
        raise NotFoundError.of(
            "lab-not-found",
            f"there is no lab {name!r}",
            remedy="bring it up with `credspec lab up`",
        ) from None


def all_labs() -> Iterator[Lab]:
    """Return all labs of this machine, by name."""
    for path in sorted(STATE_ROOT.glob("*/lab.json")):
        with contextlib.suppress(CredspecError):
            yield open_lab(path.parent.name)


def _build(lab: Lab, progress: Progress) -> None:
    # Others may pass through, for PostgreSQL's sake; what is secret has a mode of its own.
    lab.directory.mkdir(mode=0o711, parents=True)
    subnet = ipaddress.IPv4Network(f"{lab.network.host_address}/30", strict=False)
    (lab.directory / "lab.json").write_text(
        json.dumps({"realm": lab.realm, "netbios": lab.netbios, "subnet": str(subnet)}), "utf-8"
    )
    lab.network.up()
    password = secrets.token_urlsafe(18) + "aA1!"
    _write_files(lab, password)
    progress(f"Provisioning the domain {lab.realm}")
    _provision(lab, password)
    progress("Making the host, the gMSAs and the service accounts")
    _populate(lab)
    programs = postgres.find_programs()
    if programs is not None:
        progress("Making the PostgreSQL database")
        postgres.initialise(
            programs,
            lab.directory / "postgres",
            realm=lab.realm,
            roles=[f"{account}$" for account in READABLE],
            keytab=lab.directory / "postgres.keytab",
        )
    progress("Starting the domain controller")
    lab.start_dc()
    _name_services(lab)
    if programs is None:
        progress("PostgreSQL is not installed: going on without it")
    else:
        lab.start_postgres()
    shutil.copyfile(lab.directory / "dc/private/tls/ca.pem", lab.directory / "ca.pem")


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
            f"[realms]\n {lab.realm} = {{\n  kdc = {address}\n }}\n"
            f"[domain_realm]\n .{domain} = {lab.realm}\n {domain} = {lab.realm}\n"
        ),
        "config.toml": (
            f'run_directory = "{lab.run_directory}"\n'
            f'spec_directory = "{lab.specs_directory}"\n'
            "[host_identity]\n"
            f'keytab = "{lab.host_keytab}"\nprincipal = "{HOST_ACCOUNT}@{lab.realm}"\n'
            "[ldap]\n"
            f'ca_file = "{lab.directory / "ca.pem"}"\n'
        ),
    }
    for name, content in files.items():
        path = lab.directory / name
        path.touch(mode=0o600 if name == "admin-password" else 0o644)
        path.write_text(content, "utf-8")
    lab.specs_directory.mkdir(mode=0o755)
    lab.run_directory.mkdir(mode=0o755, parents=True)
    leases = lab.run_directory / "leases"
    leases.mkdir(mode=0o700)
    # The agent runs in a mount namespace of its own, the runtime does not: what the runtime mounts
    # for a container must reach the agent, as it does under systemd.
    mount_shared_tmpfs(leases)


def _provision(lab: Lab, password: str) -> None:
    command = ["samba-tool", "domain", "provision"]
    command += [f"--realm={lab.realm}", f"--domain={lab.netbios}", f"--adminpass={password}"]
    command += ["--server-role=dc", "--dns-backend=SAMBA_INTERNAL", "--host-name=dc1"]
    command += ["--function-level=2016", "--option=ad dc functional level=2016"]
    command += [f"--host-ip={lab.network.address}", "--quiet"]
    command += [f"--targetdir={lab.directory / 'dc'}"]
    command += ["--option=interfaces=eth0 lo", "--option=bind interfaces only=yes"]
    (lab.directory / "dc").mkdir(mode=0o700)
    _run(command_in(Plan(netns=lab.network.namespace, binds=lab._etc()), command))  # noqa: SLF001
    # No forwarder: a name outside the lab is unknown at once, not after a time-out.
    smb_conf = lab._smb_conf  # noqa: SLF001
    kept = [line for line in smb_conf.read_text("utf-8").splitlines() if "forwarder" not in line]
    log = f"\tlog file = {lab.directory}/dc/log.%m\n\tmax log size = 1000"
    text = "\n".join(kept).replace("[global]", f"[global]\n{log}", 1)
    smb_conf.write_text(text + "\n", "utf-8")


def _populate(lab: Lab) -> None:
    domain = lab.dns_domain
    tool = lab.samba_tool
    tool("computer", "create", HOST_ACCOUNT.removesuffix("$"))
    tool("user", "setpassword", HOST_ACCOUNT, f"--newpassword={secrets.token_urlsafe(24)}aA1!")
    tool("user", "enable", HOST_ACCOUNT)
    for group, member in (("LabHosts", HOST_ACCOUNT), ("WebAppHosts", "LabHosts")):
        tool("group", "add", group)
        tool("group", "addmembers", group, member)
    for account in (*READABLE, FORBIDDEN, DISABLED):
        interval = 1 if account == DAILY else 30
        tool(
            *("service-account", "create", f"--name={account}"),
            f"--dns-host-name={account.lower()}.{domain}",
            f"--managed-password-interval={interval}",
        )
        if account != DISABLED:
            tool("user", "enable", f"{account}$")
        if account != FORBIDDEN:
            group = f"CN=WebAppHosts,CN=Users,{_domain_dn(lab)}"
            reader = group if account == "WebApp02" else HOST_ACCOUNT
            tool(
                *("service-account", "group-msa-membership", "add"),
                *(f"--name={account}", f"--principal={reader}"),
            )
    tool("user", "create", "alice", f"{secrets.token_urlsafe(18)}aA1!")
    tool("computer", "create", "DBHOST")
    tool("user", "setpassword", "DBHOST$", f"--newpassword={secrets.token_urlsafe(24)}aA1!")
    tool("user", "enable", "DBHOST$")
    for name, account in (
        (f"postgres/db.{domain}", "DBHOST$"),
        (f"HTTP/web.{domain}", "WebApp01$"),
        (f"MSSQLSvc/db.{domain}:1433", "WebApp01$"),
        (f"ldap/dc1.{domain}", "DC1$"),
    ):
        tool("spn", "add", name, account)
    _declare_aes(lab, "DBHOST")
    for keytab, principal in (
        ("host.keytab", HOST_ACCOUNT),
        ("postgres.keytab", f"postgres/db.{domain}"),
    ):
        path = lab.directory / keytab
        tool("domain", "exportkeytab", str(path), f"--principal={principal}")
        path.chmod(0o600)


def _name_services(lab: Lab) -> None:
    """Let DNS name the services; the controller must run, and takes this logon from its keys."""
    for name in ("db", "web"):
        record = [lab.network.address, lab.dns_domain, name, "A", lab.network.address]
        command = ["samba-tool", "dns", "add", *record, "-P", "-s", str(lab._smb_conf)]  # noqa: SLF001
        _run(command_in(Plan(netns=lab.network.namespace, binds=lab._etc()), command))  # noqa: SLF001


def _declare_aes(lab: Lab, account: str) -> None:
    """Let the KDC make AES tickets for a service whose host never told it that it may."""
    dn = f"CN={account},CN=Computers,{_domain_dn(lab)}"
    ldif = f"dn: {dn}\nchangetype: modify\nreplace: msDS-SupportedEncryptionTypes\n"
    ldif += "msDS-SupportedEncryptionTypes: 24\n"
    _run(["ldbmodify", "-H", str(lab.directory / "dc/private/sam.ldb")], ldif)


def _domain_dn(lab: Lab) -> str:
    return "DC=" + lab.dns_domain.replace(".", ",DC=")


def _run(command: list[str], text: str | None = None) -> str:
    result = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        # The first words only: what follows may be a password.
        shown = " ".join(word for word in command if "=" not in word and "{" not in word)
        raise CredspecError.of(
            "lab-samba-tool",
            f"{shown[-120:]}: {(result.stderr or result.stdout).strip()[-400:]}",
            where="lab",
        )
    return result.stdout


def _require_programs() -> None:
    if os.geteuid() != 0:
        raise UsageError.of("lab-needs-root", "a lab needs root", where="lab")
    packages = {
        "samba": "samba samba-ad-dc samba-ad-provision",
        "samba-tool": "samba",
        "ldbmodify": "ldb-tools",
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
            + " ".join(packages[name] for name in missing)
            + " (on Debian 12 from bookworm-backports)",
        )


def _valid(value: str, form: re.Pattern[str], what: str) -> str:
    if not form.fullmatch(value):
        raise UsageError.of(
            f"lab-{what.split(maxsplit=1)[0].lower()}-invalid",
            f"{value[:60]!r} is not a lab's {what}",
            expected=f"the form {form.pattern}",
        )
    return value


def _wait(
    condition: Callable[[], Any], what: str, log: Path, seconds: float = _START_SECONDS
) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            with contextlib.suppress(OSError):
                what += f"; its log ends: {log.read_text('utf-8', 'replace')[-400:].strip()}"
            raise CredspecError.of("lab-timeout", f"waited {seconds:.0f} s for {what}", where="lab")
        time.sleep(0.1)


def _connects(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False


def _start_time(pid: int) -> str | None:
    """Return when a process started, in the kernel's ticks; None if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def _processes_below(pid: int) -> list[int]:
    """Return all descendants of a process."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text("utf-8").rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found
