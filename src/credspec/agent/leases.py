"""Leases: a container's use of one or more identities, from its creation to its deletion."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from credspec.agent.audit import NOBODY, AuditLog, Caller, shown
from credspec.agent.blocking_calls import BlockingCalls
from credspec.agent.completion import completed
from credspec.agent.events import Event, emit
from credspec.agent.identities import Identities, Identity, IdentityName
from credspec.agent.journal import LEASE_ID, Journal, LeaseRecord
from credspec.agent.keyed_lock import KeyedLock
from credspec.agent.lease_content import (
    accounts_of,
    file_names,
    files_of,
    identity_names,
    scopes_in,
    with_dns_names,
)
from credspec.agent.lease_directory import LeaseDirectories, LeaseDirectory
from credspec.agent.lease_environment import MOUNT_POINT
from credspec.agent.lease_limits import LeaseLimits
from credspec.agent.lease_policy import check_lease, refusal
from credspec.agent.lease_retries import LeaseRetries
from credspec.agent.liveness import FileUser, Liveness
from credspec.agent.policy import GRPC_SOURCE, Policy, PolicyInForce
from credspec.agent.report_limit import LimitedEvents, ReportLimit
from credspec.agent.subordinate_ids import check_owner
from credspec.agent.users_state import checked_state
from credspec.directory.account_identity import valid_account_name
from credspec.directory.domain import DomainFacts, check_netbios_name, differences
from credspec.errors import (
    CredspecError,
    InvalidSpecError,
    NotFoundError,
    NotPermittedError,
    UnreachableError,
    UsageError,
    internal_error,
    joined,
)
from credspec.kerberos.ticket_life import state_of
from credspec.providers.host_account import (
    GivenAccount,
    HostAccount,
    HostSource,
    LostSource,
    PluginSource,
    checked_account,
)
from credspec.providers.kept_secrets import KeptSecrets
from credspec.providers.selection import Providers, plugin_source
from credspec.rate_limit import Suppressed
from credspec.spec.document import CredentialSpec
from credspec.spec.reference import SpecReference, parse_reference
from credspec.spec.spec_directory import SpecDirectory, load

_LEASES_AT_A_TIME: Final = 20
_REFRESHES_AT_A_TIME: Final = 8
_USER_SECONDS: Final = 10.0
_FILES_SECONDS: Final = 5.0
# Of a user's files: the host's own engines wait for the agent meanwhile.
_ADOPTION_SECONDS: Final = 2.0
_SPEC_SECONDS: Final = 10.0
_AUDITED_DENIALS: Final = 20

_T = TypeVar("_T")


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
    name_fallback: bool = False
    replay_cache: bool = False
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
        process_leases_directory: Path | None = None,
        spec_directory: Path,
        audit: AuditLog,
        policy: Policy | PolicyInForce | None = None,
        providers: Providers | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._identities = identities
        self._retries = LeaseRetries(self._renewed_again, sleep=sleep)
        self._journal = journal
        self._directories = LeaseDirectories(
            leases_directory, process_leases_directory or leases_directory
        )
        self._spec_directory = SpecDirectory(spec_directory, trusted=True)
        self._audit = audit
        self._policy = policy if isinstance(policy, PolicyInForce) else PolicyInForce(policy)
        self._now = now
        self._monotonic = monotonic
        self._providers = providers or Providers()
        self._files: BlockingCalls[FileUser] = BlockingCalls()
        self._specs: BlockingCalls[int] = BlockingCalls()
        self._liveness = Liveness(self._directories, self._files, monotonic=monotonic)
        self._limits = LeaseLimits(lambda: self._policy.policy.leases_per_user)
        self._events = LimitedEvents()
        self._denials: ReportLimit[int] = ReportLimit(self._audit_suppressed, most=_AUDITED_DENIALS)
        self._sources: dict[str, HostSource | None] = {}
        self._secrets = KeptSecrets()
        self._records: dict[str, LeaseRecord] = {}
        self._locks: KeyedLock[str] = KeyedLock()
        self._tasks: set[asyncio.Task[None]] = set()
        self.granted = 0
        self.denied = 0

    @property
    def policy(self) -> PolicyInForce:
        """The policy that counts, which may be replaced."""
        return self._policy

    @property
    def count(self) -> int:
        """How many leases there are."""
        return len(self._records)

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
        return LeaseDirectory.of(self._directories.containers, _valid_id(lease_id), None).is_there()

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
        try:
            if request.user is not None:
                self._limits.check_rate(request.user)
            async with self._turn(request), self._locks.hold(request.lease_id):
                request = await self._checked_user(request)
                former = self._records.get(request.lease_id)
                if former is not None:
                    self._drop(request.lease_id)
                    await completed(self._record_released(former, request.caller))
                return await self._make(request)
        except CredspecError as error:
            await self._tell_denied(request, error)
            raise
        finally:
            if request.lease_id not in self._records:
                self._secrets.drop(request.lease_id)

    @contextlib.asynccontextmanager
    async def _turn(self, request: LeaseRequest) -> AsyncIterator[None]:
        """Let an unprivileged user have a few leases made at a time, the others have theirs."""
        if request.user is None:
            yield
            return
        async with self._limits.turn(request.user):
            yield

    async def _checked_user(self, request: LeaseRequest) -> LeaseRequest:
        """Refuse an unprivileged user what is not its own; return the request as it is kept."""
        user = request.user
        if user is None:
            return request
        present = self._records.get(request.lease_id)
        if present is not None and present.user != user:
            raise _not_yours(request.lease_id)
        self._check_number(request)
        if request.place is not None:
            return request
        try:
            # The host may look users up in a directory that does not answer.
            state = await self._files.run(
                user, partial(_checked_state, request), _USER_SECONDS, f"user {user}"
            )
        except CredspecError as error:
            if error.code != "call-timeout":
                raise
            raise CredspecError.of(
                "user-lookup-timeout",
                f"no answer within {_USER_SECONDS:.0f} s",
                where=f"user {user}",
                remedy="look at the sources of passwd and group in /etc/nsswitch.conf",
            ) from None
        return replace(request, runtime_state=state)

    def _check_number(self, request: LeaseRequest) -> None:
        if request.user is not None:
            others = (r for r in self._records.values() if r.lease_id != request.lease_id)
            self._limits.check_number(request.user, others)

    async def _load(self, request: LeaseRequest, reference: SpecReference) -> CredentialSpec:
        """Read a spec, which may be on a network file system, and costs time to check."""
        return await self._specs.run(
            request.caller.uid,
            partial(load, reference, self._spec_directory),
            _SPEC_SECONDS,
            "credential spec",
        )

    async def _make(self, request: LeaseRequest) -> LeaseRecord:
        reference = parse_reference(request.spec)
        if request.place is None:
            self._policy.policy.check_source(reference)
        spec = await self._load(request, reference)
        accounts = accounts_of(spec)
        scopes = scopes_in(accounts)
        self._check_policy(
            request, spec, [a for a in accounts if a.partition("@")[2] not in scopes]
        )
        source = self._source(request, spec)
        facts = await self._facts(spec, source)
        domains = {
            scope: await self._identities.domain_named(scope, spec.domain, source)
            for scope in sorted(scopes)
        }
        accounts = with_dns_names(accounts, domains, facts.dns_name)
        record = LeaseRecord(
            lease_id=request.lease_id,
            container=request.container,
            runtime_state=request.runtime_state,
            uid=request.uid,
            gid=request.gid,
            mode=request.mode,
            keytab=request.keytab,
            name_fallback=request.name_fallback,
            replay_cache=request.replay_cache,
            user=request.user,
            place=request.place,
            domain=facts.dns_name,
            default_account=valid_account_name(spec.default_account),
            accounts=accounts,
            created=self._now(),
            created_monotonic=self._monotonic(),
            host_source=self._recorded(source),
            spec_source=GRPC_SOURCE if request.place is not None else reference.scheme,
        )
        # Under the names that the domains have, whatever the spec calls them.
        check_lease(self._policy.policy, record)
        for scope, domain in domains.items():
            named = await self._identities.facts(domain, source)
            check_netbios_name(named, scope, facts.dns_name)
        self._check_number(request)
        self._journal.write(record)
        self._sources[record.lease_id] = source
        self._records[record.lease_id] = record
        is_written = False
        try:
            await self._hold_all(record)
            # It may have been replaced while the domain was asked.
            check_lease(self._policy.policy, record)
            record = await self._give(record, whole=True)
            is_written = True  # or will be, even if the caller goes meanwhile
            await completed(
                self._audit.record(
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
            )
        except BaseException as error:
            self._drop(record.lease_id)
            if is_written:
                end = self._record_released(record, request.caller)
                # If the disk does not answer, the line is on its way; its end follows it there.
                if isinstance(error, CredspecError):
                    self._in_background(end)
                else:
                    await completed(end)
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
            NotPermittedError: as `check_lease`: the policy does not allow the lease any more.
            CredspecError: of the step that failed.
        """
        async with self._locks.hold(_valid_id(lease_id)):
            before = self.get(lease_id)
            check_lease(self._policy.policy, before)
            former = self._sources.get(lease_id)
            source = self._given(account, before.domain, lease_id)
            if source == former:
                return before
            names, former_names = self._names(before, source), self._names(before)
            is_written = False
            entry = {
                "lease": lease_id,
                "container": before.container,
                "domain": before.domain,
                "accounts": list(before.accounts),
                "host_account": str(source),
            }
            try:
                await self._hold_all(before, names)
                check_lease(self._policy.policy, before)
                is_written = True  # or will be, even if the caller goes meanwhile
                await completed(
                    self._audit.record(Event.LEASE_GRANTED, caller, decision="granted", **entry)
                )
                self._sources[lease_id] = source
                recorded = replace(self.get(lease_id), host_source=self._recorded(source))
                record = await self._give(recorded, whole=True)
            except BaseException as error:
                self._sources[lease_id] = former
                for name in names:
                    self._identities.release(name, lease_id)
                self._secrets.drop(lease_id, but=former.secret if former else None)
                if is_written:
                    await completed(self._record_not_replaced(error, caller, entry))
                raise
            for name in former_names:
                self._identities.release(name, lease_id)
            self._secrets.drop(lease_id, but=source.secret)
            return record

    async def _record_not_replaced(
        self, error: BaseException, caller: Caller, entry: dict[str, Any]
    ) -> None:
        """Write that a lease keeps its former account, after a grant of another was written."""
        problems = error.problems if isinstance(error, CredspecError) else ()
        codes = [problem.code for problem in problems] or ["call-ended"]
        with contextlib.suppress(CredspecError):
            await self._audit.record(
                Event.LEASE_DENIED, caller, decision="denied", **entry, errors=codes
            )

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
                elif isinstance(found, Exception):
                    failures.append(internal_error(found, "leases"))
                elif found is not None:
                    raise found
        return failures

    def _check_policy(
        self, request: LeaseRequest, spec: CredentialSpec, accounts: Sequence[str]
    ) -> None:
        """Ask before anything is asked of a domain, with the names that the spec has."""
        policy = self._policy.policy
        policy.check_accounts(accounts, spec.domain)
        if request.keytab:
            policy.check_keytabs(accounts, spec.domain)

    async def _facts(self, spec: CredentialSpec, source: HostSource | None) -> DomainFacts:
        """Return the facts of a spec's domain, which must be those that the spec holds."""
        facts = await self._identities.facts(spec.domain, source)
        try:
            _check_same_domain(spec, facts)
        except InvalidSpecError:
            # The domain may have been made again since it was asked.
            with contextlib.suppress(UnreachableError):
                facts = await self._identities.facts(spec.domain, source, again=True)
            _check_same_domain(spec, facts)
        return facts

    def _source(self, request: LeaseRequest, spec: CredentialSpec) -> HostSource | None:
        """Return what to log on with for a spec, None for the machine identity."""
        if request.host_account is not None:
            return self._given(request.host_account, spec.domain, request.lease_id)
        source = plugin_source(spec)
        if source is None:
            return None
        self._providers.check(source)
        if self._providers.holds_secret(source):
            return source.concealed(lambda text: self._secrets.keep(text, request.lease_id))
        return source

    def _given(self, account: HostAccount, home: str, lease_id: str) -> GivenAccount:
        checked = checked_account(
            account.domain, account.user, account.password, "account of the request"
        )
        given = GivenAccount(checked, home)
        self._providers.check(given)
        return given.concealed(lambda text: self._secrets.keep(text, lease_id))

    def _recorded(self, source: HostSource | None) -> dict[str, str] | None:
        """Return what the journal may know of a source."""
        if source is None:
            return None
        if not isinstance(source, PluginSource):
            return {}
        recorded = {"guid": source.guid}
        if source.secret is None:
            recorded["input"] = source.plugin_input
        return recorded

    def _names(
        self, record: LeaseRecord, source: HostSource | None = None
    ) -> tuple[IdentityName, ...]:
        return identity_names(record, source or self._sources.get(record.lease_id))

    async def _tell_denied(self, request: LeaseRequest, error: CredspecError) -> None:
        self.denied += 1
        if error.code == "audit-unwritable":
            return
        if isinstance(error, InvalidSpecError):
            self._emit(Event.SPEC_REFUSED, request, error=str(error))
        self._emit(Event.LEASE_DENIED, request, error=str(error))
        self._denials.flush()
        if request.user is not None and not self._denials.allows(request.user):
            return
        # Denied it is in any case, even if that cannot be written down.
        with contextlib.suppress(CredspecError):
            await self._audit.record(
                Event.LEASE_DENIED,
                request.caller,
                decision="denied",
                lease=request.lease_id,
                container=request.container,
                spec=shown(request.spec),
                errors=[problem.code for problem in error.problems],
            )

    def _emit(self, event: Event, request: LeaseRequest, **fields: str) -> None:
        if request.user is None:
            emit(event, container=request.container, **fields)
        else:
            self._events.emit(event, request.user, container=request.container, **fields)

    def _audit_suppressed(self, suppressed: Suppressed[int]) -> None:
        """Write down how many denials of a user were not written down one by one."""
        uid = NOBODY.uid if suppressed.key is None else suppressed.key
        self._in_background(
            self._audit.record(
                Event.LEASE_DENIED,
                Caller(uid, NOBODY.pid),
                decision="denied",
                suppressed=suppressed.count,
            )
        )

    async def release(self, lease_id: str, caller: Caller = NOBODY) -> None:
        """Release a lease and wipe its tickets; one that does not exist is fine.

        Raises:
            UsageError: `lease-id-invalid`.
            NotPermittedError: `lease-not-yours`.
        """
        async with self._locks.hold(_valid_id(lease_id)):
            record = self._records.get(lease_id)
            if record is None:
                return
            if caller.uid not in {NOBODY.uid, 0, os.geteuid(), record.user}:
                raise _not_yours(lease_id)
            wiped = self._drop(lease_id)
            emit(Event.LEASE_RELEASED, lease=lease_id, container=record.container)
            await completed(self._record_released(record, caller))
            if wiped is not None:
                await asyncio.wait([wiped], timeout=_FILES_SECONDS)

    async def _record_not_adopted(self, records: Sequence[LeaseRecord]) -> None:
        """Write the ends of leases that were not taken over, one by one: they may be many."""
        for record in records:
            await self._record_released(record, NOBODY)

    async def _record_released(self, record: LeaseRecord, caller: Caller) -> None:
        """Write the end of a lease where its grant was written; it has ended in any case."""
        with contextlib.suppress(CredspecError):
            await self._audit.record(
                Event.LEASE_RELEASED,
                caller,
                decision="released",
                lease=record.lease_id,
                container=record.container,
            )

    async def renew(self, identity: Identity) -> None:
        """Give an identity's new ticket to all its leases; one that fails does not stop others.

        A lease that the policy does not allow any more ends instead. Those of unprivileged users
        get it in the background, since their files may not answer.
        """
        # One taken over has none to give, but may know other controllers.
        if identity.ticket is not None and not identity.is_fit(self._now()):
            error = _unfit([identity], self._now())
            emit(Event.REFRESH_FAILED, identity=str(identity.name), error=str(error))
            return
        for number, lease_id in enumerate(sorted(identity.holders)):
            record = self._records.get(lease_id)
            if record is None or not record.ready:
                continue
            refused = refusal(self._policy.policy, record)
            if refused is not None:
                await self._revoke(record, refused)
            elif record.user is None:
                await self._renew_one(record)
            else:
                self._in_background(self._renew_one(record))
            if number % _LEASES_AT_A_TIME == 0:
                # Whoever else asks meanwhile is answered in between.
                await asyncio.sleep(0)

    async def _renew_one(self, record: LeaseRecord, *, is_retry: bool = False) -> bool:
        """Give a lease its new tickets; return whether it has them. If not, it is tried again."""
        try:
            await self._give(record, is_current=lambda: self._is_current(record))
        except CredspecError as error:
            failure = str(error)
        except Exception as error:  # noqa: BLE001 - the others have theirs
            failure = str(internal_error(error, f"lease {record.lease_id}"))
        else:
            self._retries.end(record.lease_id)
            return True
        fields = {"lease": record.lease_id, "container": record.container, "error": failure}
        if is_retry:
            pass  # a full disk of ten thousand leases is not to fill the log as well
        elif record.user is None:
            emit(Event.LEASE_NOT_RENEWED, **fields)
        else:
            self._events.emit(Event.LEASE_NOT_RENEWED, record.user, **fields)
        if record.lease_id in self._records:
            self._retries.begin(record.lease_id)
        return False

    async def _renewed_again(self, lease_id: str) -> bool:
        """Try a lease again that has not got its tickets; return whether that is done with."""
        record = self._records.get(lease_id)
        if record is None or not record.ready:
            return True
        refused = refusal(self._policy.policy, record)
        if refused is not None:
            await self._revoke(record, refused)
            return True
        if not await self._renew_one(record, is_retry=True):
            return False
        emit(Event.LEASE_RENEWED_LATE, lease=record.lease_id, container=record.container)
        return True

    def _is_current(self, record: LeaseRecord) -> bool:
        return self._records.get(record.lease_id) is record

    def _in_background(self, work: Coroutine[Any, Any, object]) -> None:
        """Let something be done that nobody waits for and that may fail."""

        async def done() -> None:
            try:
                await work
            except CredspecError:
                pass  # reported where it was raised
            except Exception as error:  # noqa: BLE001 - nobody else would report it
                emit(Event.INTERNAL_ERROR, path="leases", error=type(error).__name__)

        task = asyncio.get_running_loop().create_task(done())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def adopt(self) -> None:
        """Take over the leases of an earlier run whose containers still live, end the others.

        The containers keep the tickets that they have; nobody is asked until it is their time. What
        the policy does not allow any more is ended, too. A record that is damaged, or that cannot
        be taken over for any reason, costs its own lease.
        """
        self._journal.remove_leftovers()
        records = []
        for record in list(self._journal.records()):
            if isinstance(record, str):
                emit(Event.JOURNAL_RECORD_UNREADABLE, lease=record)
                self._directories.wipe(record)
                self._forget(record)
            else:
                records.append(record)
        gone = await self._liveness.gone(records, seconds=_ADOPTION_SECONDS)
        ended = {record.lease_id for record in gone}
        in_place = await self._with_files_in_place(r for r in records if r.lease_id not in ended)
        dropped = []
        for number, record in enumerate(records):
            self._records[record.lease_id] = record
            is_dropped = await self._adopt_or_end(
                record,
                is_gone=record.lease_id in ended,
                in_place=record.lease_id in in_place,
            )
            # One that was being made has no grant in the audit log that would need an end.
            if is_dropped and record.ready:
                dropped.append(record)
            if number % _LEASES_AT_A_TIME == 0:
                await asyncio.sleep(0)
        self._in_background(self._record_not_adopted(dropped))
        self._close_directory()
        # The clock may have been set while nobody looked.
        self._identities.clock_changed()

    async def _adopt_or_end(self, record: LeaseRecord, *, is_gone: bool, in_place: bool) -> bool:
        """Adopt or revoke a lease of an earlier run; return whether it was dropped instead."""
        is_dropped = False
        try:
            self._sources[record.lease_id] = _source_of(record)
            if is_gone:
                raise _container_gone(record)
            refused = self._refused_now(record)
            if refused is not None:
                await self._revoke(record, refused)
                return False
            self._adopt(record, in_place=in_place)
        except Exception as error:  # noqa: BLE001 - it costs this lease, and no other
            if not isinstance(error, CredspecError):
                emit(Event.INTERNAL_ERROR, path=record.lease_id, error=type(error).__name__)
            is_dropped = True
            self._drop(record.lease_id)
            emit(Event.LEASE_NOT_ADOPTED, lease=record.lease_id, container=record.container)
        else:
            emit(Event.LEASE_ADOPTED, lease=record.lease_id, container=record.container)
        self._close_directory()
        return is_dropped

    async def enforce_policy(self) -> int:
        """End every lease that the policy does not allow any more; return how many."""
        tasks = []
        for number, record in enumerate(list(self._records.values())):
            if refusal(self._policy.policy, record) is not None:
                # Each by itself: one that is being made must not hold up the others.
                tasks.append(asyncio.create_task(self._end_refused(record.lease_id)))
            if number % _LEASES_AT_A_TIME == 0:
                await asyncio.sleep(0)
        return sum(await asyncio.gather(*tasks))

    async def _end_refused(self, lease_id: str) -> bool:
        async with self._locks.hold(lease_id):
            record = self._records.get(lease_id)
            refused = None if record is None else refusal(self._policy.policy, record)
            if record is None or refused is None:
                return False
            await self._revoke(record, refused)
            return True

    def _refused_now(self, record: LeaseRecord) -> CredspecError | None:
        """Return why a lease of an earlier run is not allowed any more, None if it is."""
        source = self._sources.get(record.lease_id)
        try:
            check_lease(self._policy.policy, record)
            if source is not None:
                self._providers.check(source)
        except CredspecError as error:
            return error
        return None

    async def _revoke(self, record: LeaseRecord, error: CredspecError) -> None:
        """End a lease that is not allowed any more, and say so where grants are written."""
        self._drop(record.lease_id)
        emit(
            Event.LEASE_REVOKED,
            lease=record.lease_id,
            container=record.container,
            error=str(error),
        )
        # It has ended in any case, even if that cannot be written down.
        with contextlib.suppress(CredspecError):
            await self._audit.record(
                Event.LEASE_REVOKED,
                NOBODY,
                decision="revoked",
                lease=record.lease_id,
                container=record.container,
                domain=record.domain,
                accounts=list(record.accounts),
                errors=[problem.code for problem in error.problems],
            )

    def _adopt(self, record: LeaseRecord, *, in_place: bool) -> None:
        """Take over one lease.

        Raises:
            CredspecError: it must end.
        """
        if not record.ready or record.ticket_start is None or record.ticket_end is None:
            raise _container_gone(record)
        for name in self._names(record):
            self._identities.adopt(
                name,
                record.lease_id,
                start=record.ticket_start,
                end=record.ticket_end,
                tickets_in_place=in_place,
                keytab_due=record.keytab_due or (record.created if record.keytab else None),
            )

    async def _with_files_in_place(self, records: Iterable[LeaseRecord]) -> set[str]:
        """Return which leases have all their files; of those that cannot be looked at, it is taken.

        What an earlier run had begun to write is removed.
        """

        async def look(record: LeaseRecord) -> str | None:
            try:
                look_for = partial(_missing_files, self._directory(record), record)
                missing = await self._on_files(record, look_for, _ADOPTION_SECONDS)
            except CredspecError:
                missing = False
            return None if missing else record.lease_id

        found = await asyncio.gather(*map(look, records))
        return {lease_id for lease_id in found if lease_id is not None}

    async def sweep(self) -> int:
        """Release the leases whose containers are gone without a word; return how many."""
        gone = await self._liveness.gone(list(self._records.values()))
        await self._liveness.forget_all_but(list(self._records.values()))
        count = 0
        for record in gone:
            # While others were looked at, its container may have been made anew.
            if not self._is_current(record):
                continue
            emit(Event.LEASE_ABANDONED, lease=record.lease_id, container=record.container)
            try:
                await self.release(record.lease_id)
            except Exception as error:  # noqa: BLE001 - the next sweep tries again
                emit(Event.INTERNAL_ERROR, path=record.lease_id, error=type(error).__name__)
            else:
                count += 1
        self._close_directory()
        return count

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
            raise joined([f for f in failures if isinstance(f, CredspecError)])

    async def _give(
        self,
        record: LeaseRecord,
        *,
        whole: bool = False,
        is_current: Callable[[], bool] = lambda: True,
    ) -> LeaseRecord:
        """Put the tickets that are held into a lease's directory, and journal until when.

        Tickets of which a quarter of the lifetime is left or less, or that start in the future, are
        not given: the container has what it had, or with `whole` the lease is refused. Nothing is
        journaled if the record is not current any more when its files are written.
        """
        held = [i for i in map(self._identities.get, self._names(record)) if i is not None]
        now = self._now()
        files = files_of(record, held, now, directory=self._directory_inside(record))
        if whole and not file_names(record) <= files.keys():
            raise _unfit([i for i in held if not i.is_fit(now)], now)
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
        write = partial(
            self._directory(record).write,
            files,
            uid=record.uid,
            gid=record.gid,
            mode=record.mode,
        )
        await self._on_files(record, write)
        if is_current():
            self._journal.write(given)
            self._records[record.lease_id] = given
        return given

    async def _on_files(
        self, record: LeaseRecord, call: Callable[[], _T], seconds: float = _FILES_SECONDS
    ) -> _T:
        """Call what works on the files of a lease; a user's may be where nothing answers."""
        if record.user is None:
            return call()
        where = f"files of user {record.user}"
        return await self._files.run(record.user, call, seconds, where)

    def _drop(self, lease_id: str) -> asyncio.Future[None] | None:
        """End a lease; a user's files are wiped later, the future tells when."""
        wiped: asyncio.Future[None] | None = None
        self._retries.end(lease_id)
        record = self._records.pop(lease_id, None)
        if record is not None:
            if record.user is None:
                self._directory(record).wipe()
            else:
                with contextlib.suppress(CredspecError):
                    # After whatever is being written there.
                    wiped = self._files.submit(record.user, self._directory(record).wipe)
            for name in self._names(record):
                self._identities.release(name, lease_id)
        self._sources.pop(lease_id, None)
        self._secrets.drop(lease_id)
        self._forget(lease_id)
        return wiped

    def _forget(self, lease_id: str) -> None:
        try:
            self._journal.remove(lease_id)
        except CredspecError as error:
            # A record without a living container is dropped by the next run.
            emit(Event.JOURNAL_UNWRITABLE, lease=lease_id, error=str(error))

    def _directory(self, record: LeaseRecord) -> LeaseDirectory:
        return self._directories.of(
            _valid_id(record.lease_id), record.runtime_state, record.user, record.place
        )

    def _directory_inside(self, record: LeaseRecord) -> str | None:
        """Return the directory as its programs see it; None if that is not known."""
        if record.place is not None:
            return None
        directory = self._directory(record)
        return str(directory.path) if record.runtime_state == str(directory.lock) else MOUNT_POINT

    def _close_directory(self) -> None:
        records = self._records.values()
        self._directories.close_to_others((each.lease_id, each.runtime_state) for each in records)


def _checked_state(request: LeaseRequest) -> str:
    """Check what an unprivileged user names; it may block."""
    assert request.user is not None  # noqa: S101 - narrows for the type checker
    check_owner(request.user, request.uid, request.gid)
    return checked_state(request.user, request.runtime_state)


def _missing_files(directory: LeaseDirectory, record: LeaseRecord) -> bool:
    directory.remove_leftovers()
    return not file_names(record) <= directory.names()


def _container_gone(record: LeaseRecord) -> CredspecError:
    return CredspecError.of("container-gone", "the container is gone", where=record.lease_id)


def _source_of(record: LeaseRecord) -> HostSource | None:
    """Return what a lease of an earlier run logs on with."""
    recorded = record.host_source
    if recorded is None:
        return None
    if "guid" in recorded and "input" in recorded:
        return PluginSource(recorded["guid"], recorded["input"], record.domain)
    return LostSource(record.lease_id)


def _unfit(identities: Sequence[Identity], now: datetime) -> NotPermittedError:
    found = "; ".join(f"{i.name}: {state_of(i.start, i.end, now)}" for i in identities)
    return NotPermittedError.of(
        "ticket-unfit",
        found or "a ticket is missing",
        where="ticket",
        expected="more than a quarter of its lifetime left, and no start in the future",
        remedy="start the container again; the clock was set while it was started",
    )


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
