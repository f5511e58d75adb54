"""A second domain controller of a lab's domain, in a network namespace of its own."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from credspec.directory.locator import DnsResolver
from credspec.errors import CredspecError, UnreachableError
from credspec.lab.controller_process import ControllerProcess
from credspec.lab.delayed_link import DelayedLink
from credspec.lab.domain import DELAY, SECOND, Lab, run_tool
from credspec.lab.namespaces import Plan, command_in
from credspec.lab.network import LabNetwork, has_ipv6, ip, remove_network, reserved_subnet
from credspec.lab.provisioning import Progress, keep_to_itself
from credspec.lab.service import Service, wait_for

_SERVICES: Final = ("_ldap._tcp.dc._msdcs", "_kerberos._tcp.dc._msdcs", "_kerberos._udp")
_RECORD: Final = "controller.json"
_DNS_SECONDS: Final = 2.0
_ATTEMPTS: Final = 10


@dataclass(frozen=True, slots=True)
class SecondController:
    """A second domain controller that is up, or was; made by `up_second_controller`.

    With `ipv6`, both controllers of the domain have IPv6 addresses too.
    """

    lab: Lab
    network: LabNetwork
    ipv6: bool

    @property
    def name(self) -> str:
        """The host name, without the domain."""
        return SECOND

    @property
    def host(self) -> str:
        """The DNS name."""
        return f"{self.name}.{self.lab.dns_domain}"

    @property
    def address(self) -> str:
        """The IPv4 address, also of its DNS server."""
        return self.network.address

    @property
    def addresses(self) -> tuple[str, ...]:
        """All addresses that DNS has of it."""
        return _addresses(self.network, ipv6=self.ipv6)

    @property
    def directory(self) -> Path:
        """What the controller keeps."""
        return self.lab.directory / self.name

    @property
    def smb_conf(self) -> Path:
        """The controller's configuration."""
        return self.directory / "dc" / "etc" / "smb.conf"

    @property
    def log(self) -> Path:
        """What the controller prints."""
        return self._process.service.log

    @property
    def account(self) -> str:
        """Its account in the domain."""
        return f"{self.name.upper()}$"

    @property
    def database(self) -> tuple[str, ...]:
        """The options by which Samba's tools use its database instead of the first one's."""
        return ("-s", str(self.smb_conf), "-H", f"{self.directory}/dc/private/sam.ldb")

    def is_running(self) -> bool:
        """Return whether the controller runs, frozen or cut off or not."""
        return self._process.is_running()

    def start(self, *, offset_seconds: int = 0) -> None:
        """Start the controller and wait until it answers; its clock may be off.

        One that is cut off cannot answer.

        Raises:
            CredspecError: `lab-timeout`.
        """
        self._process.start(offset_seconds=offset_seconds)

    def stop(self) -> None:
        """Stop the controller: its host refuses connections."""
        self._process.stop()

    def pause(self) -> None:
        """Freeze the controller: it takes connections and never answers."""
        self._process.pause()

    def resume(self) -> None:
        """Let a frozen controller go on."""
        self._process.resume()

    def cut_off(self) -> None:
        """Take its links down: nobody reaches its host any more, nor does the other controller.

        Raises:
            CredspecError: `lab-network`.
        """
        for interface in self._interfaces:
            ip("-n", self.network.namespace, "link", "set", interface, "down")

    def reconnect(self) -> None:
        """Take the links up that `cut_off` took down; to do it again is fine.

        Raises:
            CredspecError: `lab-network`.
        """
        inside = ("-n", self.network.namespace)
        for interface in self._interfaces:
            ip(*inside, "link", "set", interface, "up")
        # The routes and the IPv6 addresses went with the links.
        ip(*inside, "route", "replace", "default", "via", self.network.host_address)
        if self.ipv6:
            self.network.add_ipv6()
            self.network.connect_ipv6(self.lab.network)
        # Else a program that looked for it in vain believes so for another second.
        ip("neigh", "flush", "dev", self.network.host_interface)
        near = ("-n", self.lab.network.namespace)
        ip(*near, "neigh", "flush", "dev", self.network.host_interface)

    def delay(self, milliseconds: int) -> None:
        """Let all its answers to the host and beyond leave so much later; 0 ends that.

        Raises:
            CredspecError: `lab-network`, `lab-timeout`.
        """
        link = DelayedLink(self.network.namespace, "eth0", Service(DELAY, self.directory))
        link.delay(milliseconds)

    def replicate(self) -> None:
        """Bring the domain's accounts to the same state at both controllers, now.

        They do so by themselves after some seconds.

        Raises:
            CredspecError: `lab-samba-tool`.
        """
        for target, source in ((self.host, self.lab.dc_host), (self.lab.dc_host, self.host)):
            _replicate(self.lab, target, source)

    def down(self) -> None:
        """Remove the controller, and what the domain and the lab have of it.

        What is gone already is fine; if it fails it can be done again. The first controller is
        started if it does not run.

        Raises:
            CredspecError: `lab-samba-tool`; `lab-timeout`, also if the first controller is frozen.
        """
        self.delay(0)
        self.stop()
        self.lab.network.disconnect(self.network)
        remove_network(self.lab.second_network)
        _write_files(self, present=False)
        self.lab.start_dc()
        if _has_account(self):
            _forget_catalog(self)
            self.lab.samba_tool("domain", "demote", f"--remove-other-dead-server={self.name}")
        if self.ipv6:
            self.lab.network.remove_ipv6()
            _update_dns(self.lab)
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def _process(self) -> ControllerProcess:
        return ControllerProcess(
            service=Service(self.name, self.directory),
            network=self.network,
            smb_conf=self.smb_conf,
            etc_files=self.lab.etc_files(),
        )

    @property
    def _interfaces(self) -> tuple[str, str]:
        """The interfaces inside: to the host, and to the first controller."""
        return ("eth0", self.lab.network.host_interface)


def find_second_controller(lab: Lab) -> SecondController | None:
    """Return a lab's second controller, running or not; None if it has none."""
    try:
        raw = json.loads((lab.directory / SECOND / _RECORD).read_text("utf-8"))
        network = LabNetwork.of(lab.second_network, ipaddress.IPv4Network(raw["subnet"]))
        return SecondController(lab, network, bool(raw["ipv6"]))
    except (OSError, ValueError, KeyError):
        return None


def up_second_controller(lab: Lab, *, progress: Progress = lambda _: None) -> SecondController:
    """Bring up a second controller of a lab's domain and return it.

    One that is up already is returned as it is. When it returns, DNS knows both controllers
    wherever it is asked, and both have the same accounts. Where the machine has IPv6, both have
    IPv6 addresses from now on; the first one restarts for that. If it fails or is interrupted,
    nothing is left.

    Raises:
        CredspecError: of the step that failed.
    """
    existing = find_second_controller(lab)
    if existing is not None:
        if existing.is_running():
            return existing
        progress("Removing a second controller that did not end well")
        existing.down()
    with contextlib.ExitStack() as reserved:
        subnet = reserved.enter_context(reserved_subnet())
        second = SecondController(lab, LabNetwork.of(lab.second_network, subnet), has_ipv6())
        try:
            _connect(second, subnet)
            reserved.close()
            _build(second, progress)
        except BaseException:
            second.down()
            raise
    return second


def _connect(second: SecondController, subnet: ipaddress.IPv4Network) -> None:
    """Make the controller's directory and its network."""
    second.directory.mkdir(mode=0o700)
    record = {"subnet": str(subnet), "ipv6": second.ipv6}
    (second.directory / _RECORD).write_text(json.dumps(record), "utf-8")
    second.network.up()


def _build(second: SecondController, progress: Progress) -> None:
    lab = second.lab
    lab.network.connect(second.network)
    second.reconnect()
    if second.ipv6:
        progress(f"Restarting {lab.dc_host} with an IPv6 address")
        lab.network.add_ipv6()
        # The server looks at its addresses only when it starts.
        lab.stop_dc()
    lab.start_dc()
    # Names that only clients of several controllers ask for, such as the global catalog's.
    _update_dns(lab)
    _write_files(second, present=True)
    progress(f"Joining {second.host} to the domain")
    _join(second)
    progress(f"Starting {second.host}")
    second.start()
    with (lab.directory / "ca.pem").open("ab") as file:
        file.write((second.directory / "dc/private/tls/ca.pem").read_bytes())
    # Else the first controller takes the second for a source only minutes later.
    _ask_controllers(lab, "kcc", lab.dc_host)
    progress("Waiting until DNS knows both")
    wait_for(lambda: _is_known(second), "the controllers' DNS records", second.log)
    second.replicate()


def _join(second: SecondController) -> None:
    lab = second.lab
    # Samba takes a password from a file, where the list of processes does not show it.
    with tempfile.TemporaryDirectory(dir=second.directory) as secrets:
        credentials = Path(secrets, "credentials")
        credentials.write_text(
            f"username = Administrator\npassword = {lab.admin_password}\ndomain = {lab.netbios}\n",
            "utf-8",
        )
        command = ["samba-tool", "domain", "join", lab.dns_domain, "DC"]
        command += [f"--server={lab.dc_host}", f"--authentication-file={credentials}"]
        command += ["--use-kerberos=off", "--dns-backend=SAMBA_INTERNAL"]
        command += [f"--targetdir={second.directory / 'dc'}"]
        command += [f"--option=netbios name={second.name.upper()}"]
        command += [f"--option=log file={second.directory}/join.log"]
        command += ["--option=ad dc functional level=2016"]
        command += ["--option=interfaces=eth0 lo", "--option=bind interfaces only=yes"]
        plan = Plan(netns=second.network.namespace, binds=lab.etc_files(), tmpfs=("/run/samba",))
        run_tool(command_in(plan, command))
    keep_to_itself(second.smb_conf)
    # Else it has the name only some time after its first start, and the first one later still.
    name = ("spn", "add", f"ldap/{second.host}", second.account)
    lab.samba_tool(*name)
    run_tool(["samba-tool", *name, *second.database])


def _has_account(second: SecondController) -> bool:
    try:
        second.lab.samba_tool("computer", "show", second.account)
    except CredspecError:
        return False
    return True


def _is_known(second: SecondController) -> bool:
    lab = second.lab
    hosts = {lab.dc_host: _addresses(lab.network, ipv6=second.ipv6), second.host: second.addresses}
    try:
        for controller in (lab.dc_address, second.address):
            resolver = DnsResolver(_DNS_SECONDS, nameserver=controller)
            for service in _SERVICES:
                found = resolver.srv(f"{service}.{lab.dns_domain}")
                if {record.target.lower() for record in found} != set(hosts):
                    return False
            for host, addresses in hosts.items():
                if set(resolver.addresses(host)) != set(addresses):
                    return False
    except UnreachableError:
        return False
    return True


def _addresses(network: LabNetwork, *, ipv6: bool) -> tuple[str, ...]:
    return (network.address, network.address6) if ipv6 else (network.address,)


def _write_files(second: SecondController, *, present: bool) -> None:
    """Let the lab's files name the second controller, or no longer."""
    lab = second.lab
    first = (lab.dc_address, f"{lab.dc_host} dc1")
    named = [(address, f"{second.host} {second.name}") for address in second.addresses]
    if second.ipv6:
        named.append((lab.network.address6, first[1]))
    for file, form, entries in (
        ("hosts", "{} {}", named),
        ("resolv.conf", "nameserver {}", [(second.address, "")]),
        ("krb5.conf", "  kdc = {}", [(second.address, "")]),
    ):
        path = lab.directory / file
        ours = [form.format(*entry) for entry in entries]
        lines = [line for line in path.read_text("utf-8").splitlines() if line not in ours]
        if present:
            after = lines.index(form.format(*first)) + 1
            lines[after:after] = ours
        # In place: it is mounted over files of /etc.
        path.write_text("\n".join(lines) + "\n", "utf-8")
    if not present:
        shutil.copyfile(lab.directory / "dc/private/tls/ca.pem", lab.directory / "ca.pem")


def _replicate(lab: Lab, target: str, source: str) -> None:
    _ask_controllers(lab, "replicate", target, source, lab.domain_dn)


def _ask_controllers(lab: Lab, *arguments: str) -> None:
    """Run ``samba-tool drs`` as the first controller, until it is answered.

    A controller that has just started does not know its own services yet (EPT_CANT_PERFORM_OP), and
    a connection from before a restart fails once more before it is made again.
    """
    for left in reversed(range(_ATTEMPTS)):
        try:
            _run_as_first(lab, "samba-tool", "drs", *arguments, "-P")
        except CredspecError:
            if not left:
                raise
            time.sleep(1)
        else:
            return


def _forget_catalog(second: SecondController) -> None:
    """Take the addresses of its global catalog out of DNS, which a demotion leaves there."""
    lab = second.lab
    zone = f"_msdcs.{lab.dns_domain}"
    for address in second.addresses:
        kind = "AAAA" if ":" in address else "A"
        record = [lab.dc_address, zone, "gc", kind, address]
        # Not there yet if it never came up.
        with contextlib.suppress(CredspecError):
            _run_as_first(lab, "samba-tool", "dns", "delete", *record, "-P")


def _update_dns(lab: Lab) -> None:
    """Let the first controller's records in DNS be those of the addresses that it has now."""
    _run_as_first(lab, "samba_dnsupdate", "--use-samba-tool")


def _run_as_first(lab: Lab, *command: str) -> None:
    plan = Plan(netns=lab.network.namespace, binds=lab.etc_files())
    run_tool(command_in(plan, [*command, "-s", str(lab.smb_conf)]))
