"""A domain controller's process: started in a network of its own, stopped, frozen, let go on."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from credspec.directory.dns_resolver import DnsResolver
from credspec.errors import UnreachableError
from credspec.lab.namespaces import Plan, command_in
from credspec.lab.network import LabNetwork, connects
from credspec.lab.service import Service, wait_for

PORTS: Final = (53, 88, 389, 636)
"""What a controller must take connections on before it counts as up."""

_DNS_SECONDS: Final = 2.0
_FAKETIME: Final = "/usr/lib/{machine}-linux-gnu/faketime/libfaketimeMT.so.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerProcess:
    """Samba as a domain controller, with `smb_conf`, in `network`.

    `etc_files` are the files of /etc that it sees replaced.
    """

    service: Service
    network: LabNetwork
    smb_conf: Path
    etc_files: dict[str, str]

    def is_running(self) -> bool:
        """Return whether the process runs, frozen or not."""
        return self.service.pid() is not None

    def start(self, *, offset_seconds: int = 0) -> None:
        """Start the controller and wait until it answers the host; its clock may be off.

        Raises:
            CredspecError: `lab-timeout`.
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
            binds=self.etc_files,
            tmpfs=("/run/samba",),
            own_processes=True,
        )
        samba = ["samba", "-i", "--no-process-group", "-s", str(self.smb_conf)]
        self.service.start(command_in(plan, samba), environment)
        wait_for(self._answers, "the domain controller", self.service.log)

    def stop(self) -> None:
        """End the controller and all it started; one that does not run is fine."""
        self.service.stop()

    def pause(self) -> None:
        """Freeze the controller: it takes connections and never answers."""
        self.service.signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen controller go on."""
        self.service.signal_all(signal.SIGCONT)

    def _answers(self) -> bool:
        if not all(connects(self.network.address, port) for port in PORTS):
            return False
        command = ["ldapsearch", "-x", "-LLL", "-o", "nettimeout=2", "-s", "base", "-b", ""]
        command += ["-H", f"ldap://{self.network.address}", "defaultNamingContext"]
        plan = Plan(netns=self.network.namespace, binds=self.etc_files)
        found = subprocess.run(command_in(plan, command), capture_output=True, check=False)
        _, has_context, context = found.stdout.decode().partition("defaultNamingContext:")
        domain = context.split("\n")[0].strip().replace("DC=", "").replace(",", ".")
        # Its name server loads the zones after it has taken the port.
        return bool(has_context) and self._names_itself(domain)

    def _names_itself(self, domain: str) -> bool:
        resolver = DnsResolver(_DNS_SECONDS, nameserver=self.network.address)
        try:
            return bool(resolver.srv(f"_ldap._tcp.dc._msdcs.{domain}"))
        except UnreachableError:
            return False
