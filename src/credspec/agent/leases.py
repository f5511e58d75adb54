"""Leases: a container's use of one or more identities, from its creation to its deletion."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from credspec.agent.audit import NOBODY, AuditLog, Caller, shown
from credspec.agent.container_state import ContainerStates
from credspec.agent.events import Event, emit
from credspec.agent.identities import Identities, Identity, IdentityName
from credspec.agent.journal import LEASE_ID, Journal, LeaseRecord
from credspec.agent.lease_content import (
    accounts_of,
    file_names,
    files_of,
    identity_names,
    scopes_in,
    with_dns_names,
)
from credspec.agent.lease_directory import LeaseDirectory, mounted_below
from credspec.agent.policy import Policy
from credspec.agent.subordinate_ids import check_owner
from credspec.directory.account_identity import valid_account_name
from credspec.directory.domain import DomainFacts, differences
from credspec.errors import (
    CredspecError,
    InvalidSpecError,
    NotFoundError,
    NotPermittedError,
    UsageError,
)
from credspec.providers.host_account import (
    GivenAccount,
    HostAccount,
    HostSource,
    LostSource,
    PluginSource,
    checked_account,
)
from credspec.providers.selection import Providers, plugin_source
from credspec.spec.document import CredentialSpec
from credspec.spec.reference import parse_reference
from credspec.spec.spec_directory import SpecDirectory, load

# A container that is being made has no runtime state yet; after this it must have.
_CREATION_TIME: Final = timedelta(minutes=2)
_LEASES_AT_A_TIME: Final = 20
_REFRESHES_AT_A_TIME: Final = 8
_USER_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRequest:
    """What the runtime shim asks for; fields as in `LeaseRecord`, `spec` is a reference.

    `host_account` is what to log on with in place of what the spec or the host has. It stays in
    memory alone, for as long as the lease. With a `place` whoever asks has decided already whose
    files these are, and that a document may be used.
    """

    lease_id: str
    spec: str
    container: str
    runtime_state: str
    uid: int
    gid: int
    mode: int = 0o600
    keytab: bool = False
    place: str | None = None
    caller: Caller = NOBODY
    host_account: HostAccount | None = field(default=None, repr=False)

    @property
    def user(self) -> int | None:
        """The unprivileged user who asks, None for the host's own."""
        return self.caller.uid if self.caller.uid not in {NOBODY.uid, 0, os.geteuid()} else None


class Leases:
    """All leases of this host."""

    def __init__(
        self,
        identities: Identities,
        journal: Journal,
        *,
        leases_directory: Path,
        spec_directory: Path,
        audit: AuditLog,
        policy: Policy | None = None,
        providers: Providers | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._identities = identities
        self._journal = journal
        self._leases_directory = leases_directory
        self._spec_directory = SpecDirectory(spec_directory, trusted=True)
        self._audit = audit
        self._policy = policy or Policy()
        self._now = now
        self._providers = providers or Providers()
        self._states = ContainerStates()
        self._sources: dict[str, HostSource | None] = {}
        self._records: dict[str, LeaseRecord] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self.granted = 0
        self.denied = 0

    def all(self) -> list[LeaseRecord]:
        """Return all leases, oldest first."""
        return sorted(self._records.values(), key=lambda r: (r.created, r.lease_id))

    def get(self, lease_id: str) -> LeaseRecord:
        """Return one lease.

        Raises:
            UsageError: `lease-id-invalid`.
            NotFoundError: `lease-not-found`.
        """
        record = self._records.get(_valid_id(lease_id))
        if record is None:
            raise NotFoundError.of("lease-not-found", "there is no such lease", where=lease_id)
        return record

    def sees_directory(self, lease_id: str) -> bool:
        """Return whether what is mounted for a lease of the host's own is seen by this process.

        Raises:
            UsageError: `lease-id-invalid`.
        """
        return LeaseDirectory.of(self._leases_directory, _valid_id(lease_id), None).is_there()

    async def make(self, request: LeaseRequest) -> LeaseRecord:
        """Make a lease: all accounts of the spec have their tickets in place, or nothing is left.

        A second request for the same id replaces the first. The answer is in the audit log before
        it is given.

        Raises:
            InvalidSpecError: the spec cannot be read or used.
            NotPermittedError: the policy, the directory or the KDC refuses.
            CredspecError: of the step that failed.
        """
        _valid_id(request.lease_id)
        async with self._locked(request.lease_id):
            try:
                await self._check_user(request)
                if request.lease_id in self._records:
                    self._drop(request.lease_id)
                return await self._make(request)
            except CredspecError as error:
                self._tell_denied(request, error)
                raise

    async def _check_user(self, request: LeaseRequest) -> None:
        """Refuse an unprivileged user what is not its own."""
        if request.user is None:
            return
        present = self._records.get(request.lease_id)
        if present is not None and present.user != request.user:
            raise _not_yours(request.lease_id)
        if request.place is not None:
            return
        try:
            async with asyncio.timeout(_USER_SECONDS):
                # The host may look users up in a directory that does not answer.
                await asyncio.to_thread(check_owner, request.user, request.uid, request.gid)
        except TimeoutError:
            raise CredspecError.of(
                "user-lookup-timeout",
                f"no answer within {_USER_SECONDS:.0f} s",
                where=f"user {request.user}",
                remedy="look at the sources of passwd and group in /etc/nsswitch.conf",
            ) from None

    async def _make(self, request: LeaseRequest) -> LeaseRecord:
        reference = parse_reference(request.spec)
        if request.place is None:
            self._policy.check_source(reference)
        spec = load(reference, self._spec_directory)
        accounts = accounts_of(spec)
        scopes = scopes_in(accounts)
        self._check_policy(
            request, spec, [a for a in accounts if a.partition("@")[2] not in scopes]
        )
        source = self._source(request, spec)
        facts = await self._identities.facts(spec.domain, source)
        _check_same_domain(spec, facts)
        if scopes:
            domains = {
                scope: await self._identities.domain_named(scope, spec.domain, source)
                for scope in sorted(scopes)
            }
            accounts = with_dns_names(accounts, domains, facts.dns_name)
            self._check_policy(request, spec, accounts)
        record = LeaseRecord(
            lease_id=request.lease_id,
            container=request.container,
            runtime_state=request.runtime_state,
            uid=request.uid,
            gid=request.gid,
            mode=request.mode,
            keytab=request.keytab,
            user=request.user,
            place=request.place,
            domain=facts.dns_name,
            default_account=valid_account_name(spec.default_account),
            accounts=accounts,
            created=self._now(),
            host_source=self._recorded(source),
        )
        self._journal.write(record)
        self._sources[record.lease_id] = source
        self._records[record.lease_id] = record
        try:
            await self._hold_all(record)
            record = self._give(record)
            self._audit.write(
                Event.LEASE_GRANTED,
                request.caller,
                decision="granted",
                lease=record.lease_id,
                container=record.container,
                spec=shown(request.spec),
                domain=record.domain,
                accounts=list(record.accounts),
                **({"keytab": True} if record.keytab else {}),
                **({} if source is None else {"host_account": str(source)}),
            )
        except BaseException:
            self._drop(record.lease_id)
            raise
        self.granted += 1
        emit(
            Event.LEASE_GRANTED,
            lease=record.lease_id,
            container=record.container,
            domain=record.domain,
            accounts=list(record.accounts),
        )
        return record

    async def replace_host_account(
        self, lease_id: str, account: HostAccount, caller: Caller = NOBODY
    ) -> LeaseRecord:
        """Let a lease log on with another account, and give it new tickets at once.

        If that fails, all stays as it was. It is in the audit log before it is done.

        Raises:
            NotFoundError: `lease-not-found`.
            CredspecError: of the step that failed.
        """
        async with self._locked(_valid_id(lease_id)):
            before = self.get(lease_id)
            former = self._sources.get(lease_id)
            netbios = (before.host_source or {}).get("netbios", "")
            source = self._given(account, netbios, before.domain)
            if source == former:
                return before
            names, former_names = self._names(before, source), self._names(before)
            try:
                await self._hold_all(before, names)
                self._audit.write(
                    Event.LEASE_GRANTED,
                    caller,
                    decision="granted",
                    lease=lease_id,
                    container=before.container,
                    domain=before.domain,
                    accounts=list(before.accounts),
                    host_account=str(source),
                )
                self._sources[lease_id] = source
                record = self._give(replace(self.get(lease_id), host_source=self._recorded(source)))
            except BaseException:
                self._sources[lease_id] = former
                for name in names:
                    self._identities.release(name, lease_id)
                raise
            for name in former_names:
                self._identities.release(name, lease_id)
            return record

    async def refresh(self, lease_ids: Iterable[str]) -> list[CredspecError]:
        """Acquire the identities of some leases now, each once; return what failed."""
        records = [self._records[i] for i in lease_ids if i in self._records]
        names = list(dict.fromkeys(name for record in records for name in self._names(record)))
        failures: list[CredspecError] = []
        for first in range(0, len(names), _REFRESHES_AT_A_TIME):
            some = names[first : first + _REFRESHES_AT_A_TIME]
            for found in await asyncio.gather(
                *map(self._identities.refresh, some), return_exceptions=True
            ):
                if isinstance(found, CredspecError):
                    failures.append(found)
                elif found is not None:
                    raise found
        return failures

    def _check_policy(
        self, request: LeaseRequest, spec: CredentialSpec, accounts: Sequence[str]
    ) -> None:
        self._policy.check_accounts(accounts, spec.domain)
        if request.keytab:
            self._policy.check_keytabs(accounts, spec.domain)

    def _source(self, request: LeaseRequest, spec: CredentialSpec) -> HostSource | None:
        """Return what to log on with for a spec, None for the machine identity."""
        netbios = spec.domain_join_config.net_bios_name or ""
        if request.host_account is not None:
            return self._given(request.host_account, netbios, spec.domain)
        source = plugin_source(spec)
        if source is not None:
            self._providers.check(source)
        return source

    @staticmethod
    def _given(account: HostAccount, netbios: str, home: str) -> GivenAccount:
        checked = checked_account(
            account.domain, account.user, account.password, "account of the request"
        )
        return GivenAccount(checked, netbios, home)

    def _recorded(self, source: HostSource | None) -> dict[str, str] | None:
        """Return what the journal may know of a source."""
        if source is None:
            return None
        if not isinstance(source, PluginSource):
            return {"netbios": source.netbios} if isinstance(source, GivenAccount) else {}
        recorded = {"guid": source.guid, "netbios": source.netbios}
        if not self._providers.holds_secret(source):
            recorded["input"] = source.plugin_input
        return recorded

    def _names(
        self, record: LeaseRecord, source: HostSource | None = None
    ) -> tuple[IdentityName, ...]:
        return identity_names(record, source or self._sources.get(record.lease_id))

    def _tell_denied(self, request: LeaseRequest, error: CredspecError) -> None:
        self.denied += 1
        if error.code == "audit-unwritable":
            return
        if isinstance(error, InvalidSpecError):
            emit(Event.SPEC_REFUSED, container=request.container, error=str(error))
        emit(Event.LEASE_DENIED, container=request.container, error=str(error))
        # Denied it is in any case, even if that cannot be written down.
        with contextlib.suppress(CredspecError):
            self._audit.write(
                Event.LEASE_DENIED,
                request.caller,
                decision="denied",
                lease=request.lease_id,
                container=request.container,
                spec=shown(request.spec),
                errors=[problem.code for problem in error.problems],
            )

    async def release(self, lease_id: str, caller: Caller = NOBODY) -> None:
        """Release a lease and wipe its tickets; one that does not exist is fine.

        Raises:
            UsageError: `lease-id-invalid`.
            NotPermittedError: `lease-not-yours`.
        """
        async with self._locked(_valid_id(lease_id)):
            record = self._records.get(lease_id)
            if record is None:
                return
            if caller.uid not in {NOBODY.uid, 0, os.geteuid(), record.user}:
                raise _not_yours(lease_id)
            self._drop(lease_id)
            emit(Event.LEASE_RELEASED, lease=lease_id, container=record.container)
            with contextlib.suppress(CredspecError):
                self._audit.write(
                    Event.LEASE_RELEASED,
                    caller,
                    decision="released",
                    lease=lease_id,
                    container=record.container,
                )

    async def renew(self, identity: Identity) -> None:
        """Give an identity's new ticket to all its leases; one that fails does not stop others."""
        for number, lease_id in enumerate(sorted(identity.holders)):
            record = self._records.get(lease_id)
            if record is None or not record.ready:
                continue
            try:
                self._give(record)
            except CredspecError as error:
                emit(
                    Event.LEASE_NOT_RENEWED,
                    lease=record.lease_id,
                    container=record.container,
                    error=str(error),
                )
            if number % _LEASES_AT_A_TIME == 0:
                # Whoever else asks meanwhile is answered in between.
                await asyncio.sleep(0)

    def adopt(self) -> None:
        """Take over the leases of an earlier run whose containers still live, end the others.

        The containers keep the tickets that they have; nobody is asked until it is their time.
        """
        self._journal.remove_leftovers()
        mounted, now = mounted_below(self._leases_directory), self._now()
        for record in list(self._journal.records()):
            if isinstance(record, str):
                emit(Event.JOURNAL_RECORD_UNREADABLE, lease=record)
                LeaseDirectory.of(self._leases_directory, record, None).wipe()
                self._forget(record)
                continue
            self._records[record.lease_id] = record
            self._sources[record.lease_id] = _source_of(record)
            span = record.ticket_start, record.ticket_end
            if not record.ready or None in span or not self._is_alive(record, mounted, now):
                self._drop(record.lease_id)
                emit(Event.LEASE_NOT_ADOPTED, lease=record.lease_id, container=record.container)
                continue
            directory = self._directory(record)
            directory.remove_leftovers()
            in_place = file_names(record) <= directory.names()
            for name in self._names(record):
                self._identities.adopt(
                    name,
                    record.lease_id,
                    start=record.ticket_start or record.created,
                    end=record.ticket_end or record.created,
                    tickets_in_place=in_place,
                    keytab_due=record.keytab_due or (record.created if record.keytab else None),
                )
            emit(Event.LEASE_ADOPTED, lease=record.lease_id, container=record.container)

    async def sweep(self) -> int:
        """Release the leases whose containers are gone without a word; return how many."""
        mounted, now = mounted_below(self._leases_directory), self._now()
        gone = []
        for number, record in enumerate(list(self._records.values())):
            if not self._is_alive(record, mounted, now):
                gone.append(record)
            if number % _LEASES_AT_A_TIME == 0:
                await asyncio.sleep(0)
        self._states.keep({record.runtime_state for record in self._records.values()})
        for record in gone:
            # While others were looked at, its container may have been made anew.
            if self._records.get(record.lease_id) is not record:
                continue
            emit(Event.LEASE_ABANDONED, lease=record.lease_id, container=record.container)
            await self.release(record.lease_id)
        return len(gone)

    async def _hold_all(
        self, record: LeaseRecord, names: tuple[IdentityName, ...] | None = None
    ) -> None:
        """Hold every identity of a lease, or none, with one problem for each that failed."""
        results = await asyncio.gather(
            *(
                self._identities.hold(name, record.lease_id, keytab=record.keytab)
                for name in names or self._names(record)
            ),
            return_exceptions=True,
        )
        failures = [r for r in results if isinstance(r, BaseException)]
        for failure in failures:
            if not isinstance(failure, CredspecError):
                raise failure
        if failures:
            first = failures[0]
            assert isinstance(first, CredspecError)  # noqa: S101 - narrows for the type checker
            problems = [p for f in failures if isinstance(f, CredspecError) for p in f.problems]
            raise type(first)(*dict.fromkeys(problems))

    def _give(self, record: LeaseRecord) -> LeaseRecord:
        """Put the tickets that are held into a lease's directory, and journal until when."""
        held = [i for i in map(self._identities.get, self._names(record)) if i is not None]
        files = files_of(record, held)
        self._directory(record).write(files, uid=record.uid, gid=record.gid, mode=record.mode)
        given = replace(
            record,
            ready=True,
            ticket_start=min(identity.start for identity in held),
            ticket_end=min(identity.end for identity in held),
            keytab_due=min(
                (i.keytab_due for i in held if record.keytab and i.keytab_due is not None),
                default=None,
            ),
        )
        self._journal.write(given)
        self._records[record.lease_id] = given
        return given

    def _drop(self, lease_id: str) -> None:
        record = self._records.pop(lease_id, None)
        if record is not None:
            self._directory(record).wipe()
            for name in self._names(record):
                self._identities.release(name, lease_id)
        self._sources.pop(lease_id, None)
        self._forget(lease_id)

    def _forget(self, lease_id: str) -> None:
        try:
            self._journal.remove(lease_id)
        except CredspecError as error:
            # A record without a living container is dropped by the next run.
            emit(Event.JOURNAL_UNWRITABLE, lease=lease_id, error=str(error))

    def _is_alive(self, record: LeaseRecord, mounted: Container[str], now: datetime) -> bool:
        """Return whether a lease's container may live; `mounted` are the mounts seen before."""
        is_new = now - record.created < _CREATION_TIME
        # The shim mounts before it asks for a lease, and unmounts even if no agent runs.
        is_looked_at = record.user is not None or record.place is not None
        if is_looked_at or record.lease_id not in mounted:
            may_be_there = is_new or is_looked_at
            if not may_be_there or not self._directory(record).is_there():
                return False
        if record.runtime_state.endswith(".lock"):
            directory = self._directory(record)
            if record.runtime_state == str(directory.lock):
                return directory.is_locked()
        if is_new or record.place is not None:
            return True
        # What a user's own runtime writes proves nothing to others.
        if record.user is not None:
            return Path(record.runtime_state).is_dir()
        return self._states.is_there(record.runtime_state)

    def _directory(self, record: LeaseRecord) -> LeaseDirectory:
        return LeaseDirectory.of(
            self._leases_directory, _valid_id(record.lease_id), record.user, record.place
        )

    @contextlib.asynccontextmanager
    async def _locked(self, lease_id: str) -> AsyncIterator[None]:
        lock = self._locks.setdefault(lease_id, asyncio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked() and lease_id not in self._records:
                self._locks.pop(lease_id, None)


def _source_of(record: LeaseRecord) -> HostSource | None:
    """Return what a lease of an earlier run logs on with."""
    recorded = record.host_source
    if recorded is None:
        return None
    if "guid" in recorded and "input" in recorded:
        return PluginSource(
            recorded["guid"], recorded["input"], recorded.get("netbios", ""), record.domain
        )
    return LostSource(record.lease_id)


def _check_same_domain(spec: CredentialSpec, facts: DomainFacts) -> None:
    """Refuse a spec that names another domain than the one that answered to the name."""
    errors, _ = differences(spec.domain_join_config, facts)
    if errors:
        raise InvalidSpecError(*errors)


def _not_yours(lease_id: str) -> NotPermittedError:
    return NotPermittedError.of("lease-not-yours", "another user has this lease", where=lease_id)


def _valid_id(lease_id: str) -> str:
    if not LEASE_ID.fullmatch(lease_id):
        raise UsageError.of(
            "lease-id-invalid",
            f"{lease_id[:80]!r} is not a lease id",
            expected="32 hexadecimal digits",
        )
    return lease_id
