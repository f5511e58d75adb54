"""A lab: a real Samba domain controller with a joined host, gMSAs and a Kerberos service."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from credspec.errors import CredspecError, NotFoundError, UsageError
from credspec.lab import postgres
from credspec.lab.controller_process import ControllerProcess
from credspec.lab.namespaces import Plan, command_in, unmount_below
from credspec.lab.network import LabNetwork, connects, remove_network
from credspec.lab.service import Service, wait_for

STATE_ROOT: Final = Path("/var/lib/credspec/labs")
RUN_ROOT: Final = Path("/run/credspec-labs")
DEFAULT_NAME: Final = "default"
SECOND: Final = "dc2"
"""The host name of a second domain controller, and of what belongs to it."""
DELAY: Final = "delay"
"""The service that delays a second controller's answers."""

_FORMS: Final = {
    "name": "1 to 20 lower-case letters, digits and hyphens, such as lab1",
    "realm": "a DNS name of at least two parts in capital letters, such as EXAMPLE.TEST",
    "NetBIOS name": "1 to 15 capital letters, digits and hyphens, such as EXAMPLE",
}
NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,18}[a-z0-9])?")


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
    def domain_dn(self) -> str:
        """The domain's distinguished name."""
        return "DC=" + self.dns_domain.replace(".", ",DC=")

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
    def realm_stanzas(self) -> str:
        """What a krb5.conf says of this realm."""
        realm, domain = self.realm, self.dns_domain
        return (
            f"[realms]\n {realm} = {{\n  kdc = {self.dc_address}\n }}\n"
            f"[domain_realm]\n .{domain} = {realm}\n {domain} = {realm}\n"
        )

    @property
    def krb5_conf(self) -> Path:
        """A krb5.conf for the realm."""
        return self.directory / "krb5.conf"

    @property
    def database(self) -> str:
        """The database of the domain controller, for Samba's and ldb's tools."""
        return str(self.directory / "dc/private/sam.ldb")

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
        # What `credspec run` mounts must reach the agent, which has surroundings of its own.
        shared = ("leases", "process-leases", "volumes")
        return Plan(
            binds=self.etc_files(),
            # Samba's clients keep addresses there: of a lab with the same names, another one's.
            tmpfs=("/run/samba",),
            shared=tuple(str(self.run_directory / name) for name in shared),
        )

    def exec_argv(self, argv: list[str]) -> list[str]:
        """Return the command that runs `argv` as on the lab's joined host, environment included."""
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        return ["env", *variables, *command_in(self.plan(), argv)]

    def samba_tool(self, *arguments: str) -> str:
        """Run samba-tool on the domain's database and return what it prints.

        Raises:
            CredspecError: `lab-samba-tool`.
        """
        return run_tool(["samba-tool", *arguments, *self.database_options(arguments)])

    def run_samba_tool(self, *arguments: str) -> int:
        """Run samba-tool as `samba_tool` does, on the terminal here; return its status."""
        command = ["samba-tool", *arguments, *self.database_options(arguments)]
        return subprocess.run(command, check=False).returncode

    def is_running(self) -> bool:
        """Return whether the domain controller runs."""
        return self._dc.is_running()

    def start_dc(self, *, offset_seconds: int = 0) -> None:
        """Start the domain controller and wait until it answers; its clock may be off.

        Raises:
            CredspecError: `lab-timeout`.
        """
        self._dc.start(offset_seconds=offset_seconds)

    def stop_dc(self) -> None:
        """Stop the domain controller."""
        self._dc.stop()

    def pause_dc(self) -> None:
        """Freeze the domain controller: it takes connections and never answers."""
        self._dc.pause()

    def resume_dc(self) -> None:
        """Let a frozen domain controller go on."""
        self._dc.resume()

    def start_postgres(self) -> bool:
        """Start PostgreSQL if it is installed; return whether it is."""
        programs = postgres.find_programs()
        if programs is None or not (self.directory / "postgres").is_dir():
            return False
        plan = Plan(
            netns=self.network.namespace,
            binds=self.etc_files(),
            own_processes=True,
            user=postgres.USER,
        )
        command = postgres.server_command(
            programs,
            self.directory / "postgres",
            address=self.network.address,
            keytab=self.directory / "postgres.keytab",
        )
        self._postgres.start(command_in(plan, command), dict(os.environ))
        wait_for(lambda: connects(self.network.address, 5432), "PostgreSQL", self._postgres.log)
        return True

    def down(self) -> None:
        """Remove the lab: processes, mounts, network, files. What is gone already is fine."""
        second = self.directory / SECOND
        for service in (Service(DELAY, second), Service(SECOND, second), self._postgres):
            service.stop()
        self._dc.stop()
        unmount_below(self.run_directory)
        remove_network(self.second_network)
        self.network.down()
        shutil.rmtree(self.run_directory, ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)
        for root in (RUN_ROOT, STATE_ROOT, STATE_ROOT.parent):
            with contextlib.suppress(OSError):
                root.rmdir()  # only when the last lab has gone

    @property
    def second_network(self) -> str:
        """The name of a second controller's network; no lab's name has a dot."""
        return f"{self.name}.{SECOND}"

    @property
    def smb_conf(self) -> Path:
        """The domain controller's configuration."""
        return self.directory / "dc" / "etc" / "smb.conf"

    @property
    def _dc(self) -> ControllerProcess:
        return ControllerProcess(
            service=Service("dc", self.directory),
            network=self.network,
            smb_conf=self.smb_conf,
            etc_files=self.etc_files(),
        )

    @property
    def _postgres(self) -> Service:
        return Service("postgres", self.directory)

    def database_options(self, arguments: Sequence[str]) -> list[str]:
        """Return the options by which a command of samba-tool works on this domain's database."""
        options = ["-s", str(self.smb_conf)]
        # The commands on the domain as a whole find the database through smb.conf.
        if arguments[0] != "domain" or arguments[1] == "kds":
            options += ["-H", self.database]
        return options

    def etc_files(self) -> dict[str, str]:
        """Return the files of /etc that a program of the lab sees replaced."""
        return {f"/etc/{name}": str(self.directory / name) for name in ("resolv.conf", "hosts")}


def open_lab(name: str = DEFAULT_NAME) -> Lab:
    """Return a lab that was brought up, running or not.

    Raises:
        NotFoundError: `lab-not-found`.
    """
    path = STATE_ROOT / valid(name, NAME, "name") / "lab.json"
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


def run_tool(command: list[str], text: str | None = None) -> str:
    """Run a program of Samba and return what it prints.

    Raises:
        CredspecError: `lab-samba-tool`.
    """
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


def valid(value: str, form: re.Pattern[str], what: str) -> str:
    """Return `value` if it has the form; it becomes part of paths and commands.

    Raises:
        UsageError: `lab-name-invalid`, `lab-realm-invalid`, `lab-netbios-invalid`.
    """
    if not form.fullmatch(value):
        raise UsageError.of(
            f"lab-{what.split(maxsplit=1)[0].lower()}-invalid",
            f"{value[:60]!r} is not a lab's {what}",
            expected=_FORMS.get(what, ""),
        )
    return value
