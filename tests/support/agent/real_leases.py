"""Leases in this process, with the real domain and a real tmpfs for each lease."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from credspec.agent.audit import AuditLog
from credspec.agent.identities.identities import Identities
from credspec.agent.identities.identity import Identity
from credspec.agent.leases.journal import Journal
from credspec.agent.leases.leases import Leases
from credspec.agent.leases.request import LeaseRequest
from credspec.cli.new import NewSpecRequest, make_credential_spec
from credspec.config.policy import Policy
from credspec.directory.connection import Transport
from credspec.directory.locator import DnsResolver, Locator
from credspec.kerberos.krb5_conf import AgentKrb5Conf
from credspec.lab.domain import Lab
from credspec.session.domain_session import DomainSession
from credspec.session.host_identity import MachineKeytab
from credspec.spec.reference import SpecReference


@dataclass
class Bench:
    """What a test needs to make agents that share journal, leases and specs."""

    directory: Path
    identity: MachineKeytab
    krb5_conf: AgentKrb5Conf
    mounted: list[Path] = field(default_factory=list)
    policy: Policy = field(default_factory=Policy)
    locator: Locator = field(default_factory=lambda: Locator(DnsResolver()))

    def agent(self, **more: Any) -> tuple[Identities, Leases]:
        """Return identities and leases of an agent; `more` replaces its clock, sleep and chance."""

        async def renewed(identity: Identity) -> None:
            await leases.renew(identity)

        identities = Identities(self._session, renewed)
        leases = Leases(
            identities,
            Journal(self.directory / "journal"),
            leases_directory=self.directory / "leases",
            spec_directory=self.directory / "specs",
            audit=AuditLog(self.directory / "audit.jsonl"),
            policy=self.policy,
            **more,
        )
        return identities, leases

    def _session(self, name: str, _source: object = None) -> DomainSession:
        return DomainSession(
            name,
            host_identity=self.identity,
            locator=self.locator,
            transport=Transport.LDAP,
            ca_file=None,
            krb5_conf=self.krb5_conf,
        )

    def request(self, number: int, spec: str) -> LeaseRequest:
        """Mount what the shim would mount, and return its request."""
        lease_id = f"{number:032x}"
        directory = self.directory / "leases" / lease_id
        if directory not in self.mounted:
            directory.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "lease", str(directory)], check=True)
            self.mounted.append(directory)
        state = self.directory / "state" / lease_id
        state.mkdir(parents=True, exist_ok=True)
        return LeaseRequest(
            lease_id=lease_id,
            spec=SpecReference("file", spec),
            container=f"container{number}",
            runtime_state=str(state),
            uid=1000,
            gid=1000,
        )


@pytest.fixture
def bench(
    lab: Lab, host_identity: MachineKeytab, krb5_conf: AgentKrb5Conf, tmp_path: Path
) -> Iterator[Bench]:
    """Journal, leases and specs of one host."""
    for name in ("journal", "leases", "specs"):
        (tmp_path / name).mkdir()
    make_credential_spec(
        NewSpecRequest(account_name="WebApp01", path=str(tmp_path / "specs/one.json"))
    )
    make_credential_spec(
        NewSpecRequest(
            account_name="WebApp01",
            path=str(tmp_path / "specs/three.json"),
            additional_accounts=(("WebApp02", None), ("WebApp03", lab.netbios)),
        )
    )
    found = Bench(tmp_path, host_identity, krb5_conf)
    yield found
    for directory in found.mounted:
        subprocess.run(["umount", "-l", str(directory)], check=True)


def files(bench: Bench, number: int) -> set[str]:
    """Return the names of a lease's files."""
    return {path.name for path in (bench.directory / "leases" / f"{number:032x}").iterdir()}
