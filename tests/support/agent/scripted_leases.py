"""Real leases, identities, journal and audit log over a simulated domain; no network, no mounts.

The leases are of a tree in /dev/shm, which is memory on every Linux, so that files are written.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from credspec.agent.audit import NOBODY, AuditLog, Caller
from credspec.agent.identities.identities import Identities
from credspec.agent.identities.identity import Identity
from credspec.agent.leases.journal import Journal
from credspec.agent.leases.leases import Leases
from credspec.agent.leases.request import LeaseRequest, requested_spec
from credspec.config.policy import Policy
from credspec.directory.domain import DomainFacts
from credspec.kerberos.tickets import Ticket
from credspec.providers.selection import Providers
from credspec.session.domain_session import Acquisition

FACTS = DomainFacts(
    dns_name="example.test",
    netbios_name="EXAMPLE",
    forest="example.test",
    sid="S-1-5-21-1-2-3",
    guid="244818ae-87ca-4fcd-92ec-e79e5252348a",
    naming_context="DC=example,DC=test",
    configuration_naming_context="CN=Configuration,DC=example,DC=test",
)


def raw_spec(*accounts: str) -> str:
    """Return a reference to a spec of some accounts."""
    document = {
        "CmsPlugins": ["ActiveDirectory"],
        "DomainJoinConfig": {
            "DnsName": FACTS.dns_name,
            "NetBiosName": FACTS.netbios_name,
            "MachineAccountName": accounts[0],
        },
        "ActiveDirectoryConfig": {
            "GroupManagedServiceAccounts": [
                {"Name": name, "Scope": FACTS.dns_name} for name in accounts
            ]
        },
    }
    return f"raw://{json.dumps(document)}"


class SimulatedSession:
    """A domain that answers at once, or after `seconds`."""

    domain = FACTS.dns_name
    controllers = ()
    controller = None
    latency = None

    def __init__(self) -> None:
        self.seconds = 0.0
        self.acquired = 0
        self.known_facts: DomainFacts | None = FACTS

    def facts(self) -> DomainFacts:
        return FACTS

    read_facts = facts

    def acquire(self, account: str) -> Acquisition:
        self.acquired += 1
        time.sleep(self.seconds)
        now = datetime.now(UTC)
        name = f"{account}$@EXAMPLE.TEST"
        ticket = Ticket(name, now, now + timedelta(hours=10), 18, secrets.token_bytes(16))
        return Acquisition(f"{account}$", ticket, now + timedelta(days=30))

    acquire_with_keytab = acquire

    def close(self) -> None:
        pass


class ScriptedLeases:
    """An agent's inner part; to be made in a running event loop."""

    def __init__(
        self,
        directory: Path,
        policy: Policy | None = None,
        *,
        providers: Providers | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.directory = directory
        self.session = SimulatedSession()
        # Of other domains, by name.
        self.sessions: dict[str, SimulatedSession] = {}
        for name in ("journal", "leases", "tree"):
            (directory / name).mkdir(exist_ok=True)
        self.audit_log = directory / "audit.jsonl"

        async def renewed(identity: Identity) -> None:
            await self.leases.renew(identity)

        self.identities = Identities(
            lambda domain, _source: self.sessions.get(domain, self.session),  # type: ignore[arg-type,return-value]
            renewed,
        )
        self.leases = Leases(
            self.identities,
            Journal(directory / "journal"),
            leases_directory=directory / "leases",
            spec_directory=directory,
            audit=AuditLog(self.audit_log),
            policy=policy or Policy(spec_sources=("file", "raw")),
            providers=providers,
            sleep=sleep,
        )

    def request(
        self, number: int, *accounts: str, uid: int | None = None, **more: Any
    ) -> LeaseRequest:
        """Return a request for a lease in the tree, whose directory is made.

        Its document is vouched for, as one of credentials-fetcher's calls is.
        """
        place = self.directory / "tree" / f"lease{number}" / "account"
        place.mkdir(parents=True, exist_ok=True)
        values: dict[str, Any] = {
            "lease_id": f"{number:032x}",
            "spec": raw_spec(*(accounts or ("WebApp01",))),
            "document_is_vouched_for": True,
            "container": f"container{number}",
            "runtime_state": str(place),
            "uid": os.geteuid(),
            "gid": os.getegid(),
            "place": str(place),
            "caller": NOBODY if uid is None else Caller(uid, 1),
        }
        values |= more
        values["spec"] = requested_spec(values["spec"])
        return LeaseRequest(**values)

    def audited(self) -> list[dict[str, Any]]:
        if not self.audit_log.exists():
            return []
        return [json.loads(line) for line in self.audit_log.read_text().splitlines()]

    async def close(self) -> None:
        await self.identities.close()
        await asyncio.gather(*self.leases._background.tasks)


@contextmanager
def directory_in_memory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="credspec-test-", dir="/dev/shm"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)
