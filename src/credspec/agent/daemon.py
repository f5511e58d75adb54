"""The agent as a process: hardened, put together from its parts, and served until a signal."""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from credspec.agent import loop_watch
from credspec.agent.audit import AuditLog
from credspec.agent.blocking_calls import BlockingCalls
from credspec.agent.clock_watch import ClockChange, watch_clock
from credspec.agent.configuration_reload import ConfigurationReload
from credspec.agent.controller_watch import watch_controllers
from credspec.agent.doors.http.api import make_api
from credspec.agent.doors.http.server import serving_http
from credspec.agent.home_domain_watch import HomeDomainWatch
from credspec.agent.identities.identities import Identities
from credspec.agent.identities.identity import Identity
from credspec.agent.leases.journal import Journal
from credspec.agent.leases.leases import Leases
from credspec.agent.report_limit import ReportLimit
from credspec.agent.service_sockets import inherited_listener, stored_sockets
from credspec.config.host import Config
from credspec.config.policy import PolicyInForce
from credspec.directory.dns_resolver import load_dnspython
from credspec.directory.libldap import libldap
from credspec.errors import CredspecError
from credspec.file_replacement import remove_unfinished
from credspec.kerberos.keys import Enctype, derive_key
from credspec.kerberos.krb5_conf import AgentKrb5Conf
from credspec.providers.provider import HostSource
from credspec.providers.selection import Providers
from credspec.rate_limit import Suppressed
from credspec.service.events import Event, emit
from credspec.service.notification import keep_watchdog_quiet, notify
from credspec.service.process_safety import (
    CAPABILITIES,
    drop_capabilities,
    forbid_core_dumps,
    limit_memory,
    lock_memory,
    overwrite_freed_memory,
)
from credspec.service.signals import handle_signals, survive_signals
from credspec.session.host_identity import (
    HOST_CACHE,
    HostIdentity,
    KeytabMissingError,
    MachineKeytab,
)
from credspec.session.open_session import open_session
from credspec.session.provided_identity import ProvidedIdentity, account_of_configuration
from credspec.sockets.listener import listen, share

_SWEEP_SECONDS: Final = 30.0
# Who waited for this start is answered first: a look at thousands of leases takes a second.
_FIRST_SWEEP_SECONDS: Final = 2.0
_RESTART_SECONDS: Final = 5.0
_READY_SECONDS: Final = 5.0
_MOST_WAITING: Final = 64
_INTEGER_DIGITS: Final = 4300


def prepare_process(config: Config) -> bool:
    """Set what must stand before any native library is used; call once, at the very start.

    Freed memory is overwritten (the program starts over for that), no core dumps, no ptrace by
    others, a limit on memory, no swap, no capability but those needed; a private credential cache
    in memory, our own krb5.conf in front of the system's, and an umask that shares nothing.
    Returns whether swap could be ruled out.
    """
    overwrite_freed_memory()
    survive_signals()
    # Python's default, which the environment may have lifted: longer numbers take minutes to read.
    sys.set_int_max_str_digits(_INTEGER_DIGITS)
    os.umask(0o077)
    forbid_core_dumps()
    limit_memory()
    _make_directories(config)
    is_locked = lock_memory()
    drop_capabilities(CAPABILITIES)
    system = os.environ.get("KRB5_CONFIG") or "/etc/krb5.conf"
    os.environ |= {
        "KRB5CCNAME": HOST_CACHE,
        "KRB5_CONFIG": f"{_krb5_conf_path(config)}:{system}",
    }
    return is_locked


@asynccontextmanager
async def _no_other_door(_: Leases) -> AsyncIterator[None]:
    yield


async def serve(
    config: Config,
    other_door: Callable[[Leases], AbstractAsyncContextManager[None]] = _no_other_door,
    *,
    load: Callable[[], Config] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; leases are kept for the next run to adopt.

    `other_door` serves the leases by another interface. On SIGHUP policy, providers and log format
    are taken from what `load` returns then; without it, from the same `config`.

    Raises:
        UsageError: `agent-running` if another agent has the socket.
        NotPermittedError: the host identity cannot be used at all.
    """
    _load_libraries()
    krb5_conf = AgentKrb5Conf(_krb5_conf_path(config))
    host_identity = MachineKeytab(config.keytab, config.principal)
    home = _home_domain(config, host_identity)
    default = account_of_configuration(config)
    providers = Providers(config.providers, default=default)
    leases: Leases | None = None

    async def renewed(identity: Identity) -> None:
        if leases is not None:
            await leases.renew(identity)

    def identity_for(source: HostSource | None, domain: str) -> HostIdentity:
        wanted = source or default
        if wanted is not None:
            return ProvidedIdentity(wanted, domain, providers)
        if domain == home:
            return host_identity
        # A failure on the path to another domain must not affect this one's tickets.
        cache = f"MEMORY:credspec-host-{domain}"
        return MachineKeytab(config.keytab, config.principal, cache=cache, domain=domain)

    identities = Identities(
        lambda domain, source: open_session(
            config,
            identity_for(source, domain),
            krb5_conf,
            domain,
        ),
        renewed,
    )
    policy = PolicyInForce(config.policy)
    leases = Leases(
        identities,
        Journal(config.journal_directory),
        leases_directory=config.leases_directory,
        process_leases_directory=config.process_leases_directory,
        volumes_directory=config.volumes_directory,
        spec_directory=config.spec_directory,
        audit=AuditLog(config.audit_log),
        policy=policy,
        providers=providers,
        stored_sockets=stored_sockets(),
    )
    stop = asyncio.Event()
    reload = ConfigurationReload(
        load or (lambda: config), config, leases, providers=providers, identities=identities
    )
    handle_signals(stop.set, reload.ask)
    asyncio.get_running_loop().set_exception_handler(_Defects().report)
    policy.watched.append(lambda new: share(config.agent_socket, others=bool(new.uids)))
    calls: BlockingCalls[str] = BlockingCalls(most_waiting=_MOST_WAITING)
    watch = None if home is None else HomeDomainWatch(identities, home)
    api = make_api(
        leases,
        identities,
        policy=policy,
        readiness=lambda: _readiness_problems(config, watch, calls),
        reload_failure=lambda: reload.failure,
    )

    def clock_changed(change: ClockChange) -> None:
        emit(Event.CLOCK_CHANGED, seconds=round(change.seconds, 1), slept=round(change.slept, 1))
        identities.clock_changed()
        leases.clock_changed()

    try:
        with _agent_socket(config) as listener:
            remove_unfinished(config.run_directory)
            # What was imported stays: a collection that looks at all of it holds the event loop.
            gc.freeze()
            # Who connects meanwhile is answered when all leases are known.
            await leases.take_over()
            async with (
                serving_http(api, listener, policy),
                other_door(leases),
                _in_background(
                    _for_ever("watchdog", keep_watchdog_quiet, None),
                    _for_ever("sweep", leases.sweep, _SWEEP_SECONDS, first=_FIRST_SWEEP_SECONDS),
                    _for_ever("removed directories", leases.watch, None),
                    _for_ever("reload", reload.run, None),
                    _for_ever("clock", partial(watch_clock, clock_changed), None),
                    _for_ever("controllers", partial(watch_controllers, identities), None),
                    *([] if watch is None else [_for_ever("home domain", watch.run, None)]),
                ),
            ):
                notify("READY=1", f"STATUS={leases.count} leases adopted")
                emit(Event.AGENT_READY, socket=str(config.agent_socket), leases=leases.count)
                if loop_watch.selector is not None:
                    loop_watch.selector.reset()
                await stop.wait()
                notify("STOPPING=1")
    finally:
        leases.close()
        await identities.close()
    emit(Event.AGENT_STOPPED)


@contextmanager
def _agent_socket(config: Config) -> Iterator[socket.socket]:
    """Listen at the agent's socket, which systemd may have made; what was made here goes again."""
    others = bool(config.policy.uids)
    inherited = inherited_listener(config.agent_socket)
    if inherited is not None:
        share(config.agent_socket, others=others)
    with inherited or listen(config.agent_socket, others=others) as listener:
        try:
            yield listener
        finally:
            if inherited is None:
                config.agent_socket.unlink(missing_ok=True)


@asynccontextmanager
async def _in_background(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Let some work go on while the block runs."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _for_ever(
    name: str,
    work: Callable[[], Awaitable[object]],
    pause_seconds: float | None,
    *,
    first: float = 0.0,
) -> None:
    """Do something again and again, whatever goes wrong; without a pause, until it ends well.

    `first` is how many seconds to wait before the first time.
    """
    await asyncio.sleep(first)
    while True:
        try:
            await work()
            if pause_seconds is None:
                return
            await asyncio.sleep(pause_seconds)
        except Exception as error:  # noqa: BLE001 - nothing may end it
            emit(Event.INTERNAL_ERROR, path=name, error=type(error).__name__)
            await asyncio.sleep(_RESTART_SECONDS)


class _Defects:
    """Reports what nobody caught, a line each: a traceback may hold anything and be as long."""

    def __init__(self) -> None:
        self._limit: ReportLimit[str] = ReportLimit(self._summarize)

    def report(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """Report it; to be the event loop's exception handler."""
        del loop
        error = context.get("exception")
        what = str(context.get("message"))[:200] if error is None else type(error).__name__
        self._limit.flush()
        if self._limit.allows(what):
            emit(Event.INTERNAL_ERROR, path="event loop", error=what)

    @staticmethod
    def _summarize(suppressed: Suppressed[str]) -> None:
        what = suppressed.key or ""
        emit(Event.INTERNAL_ERROR, path="event loop", error=what, suppressed=suppressed.count)


def _home_domain(config: Config, host_identity: MachineKeytab) -> str | None:
    """Return the domain that the host is joined to, None for a host that only has providers."""
    try:
        # A missing keytab is reported at the start, not when the first container fails.
        emit(Event.HOST_IDENTITY, principal=host_identity.name)
    except KeytabMissingError:
        if not config.providers.enabled:
            raise
        emit(Event.HOST_NOT_JOINED, providers=list(config.providers.enabled))
        return None
    return host_identity.domain


async def _readiness_problems(
    config: Config, watch: HomeDomainWatch | None, calls: BlockingCalls[str]
) -> list[str]:
    """Return the reasons why no lease can be made now."""
    hindrance = None if watch is None else await watch.hindrance(_READY_SECONDS)
    reasons = [] if hindrance is None else [hindrance]
    # Files may be on a disk that does not answer.
    look = partial(_unusable_files, config, is_joined=watch is not None)
    try:
        reasons += await calls.run("files", look, _READY_SECONDS, "files of the agent")
    except CredspecError as error:
        reasons += [problem.text() for problem in error.problems]
    return reasons


def _unusable_files(config: Config, *, is_joined: bool) -> list[str]:
    reasons = [
        f"{what} {path} cannot be written"
        for what, path in (
            ("journal", config.journal_directory),
            (
                "audit log",
                config.audit_log if config.audit_log.exists() else config.audit_log.parent,
            ),
        )
        if not os.access(path, os.W_OK)
    ]
    if is_joined and not os.access(config.keytab, os.R_OK):
        reasons.append(f"host keytab {config.keytab} cannot be read")
    return reasons


def _load_libraries() -> None:
    """Load what is slow to load now, not while the first container waits."""
    load_dnspython()
    importlib.import_module("krb5")
    libldap()
    derive_key(b"", Enctype.AES256_CTS_HMAC_SHA1_96, "")


def _make_directories(config: Config) -> None:
    if not config.run_directory.is_dir():
        config.run_directory.mkdir(parents=True)
        # Users of the sockets and of processes' leases pass through it, whatever the umask.
        config.run_directory.chmod(0o755)
    config.journal_directory.mkdir(mode=0o700, exist_ok=True)
    # Containers have their tickets by a mount of their own: nobody needs the host's path to them.
    # One that an earlier version left open is closed by the leases, see `close_to_others`.
    config.leases_directory.mkdir(mode=0o700, exist_ok=True)
    config.volumes_directory.mkdir(mode=0o700, exist_ok=True)
    config.process_leases_directory.mkdir(mode=0o711, exist_ok=True)
    # Users of processes pass through to their own, which only they may enter.
    config.process_leases_directory.chmod(0o711)
    config.audit_log.parent.mkdir(mode=0o750, parents=True, exist_ok=True)


def _krb5_conf_path(config: Config) -> Path:
    return config.run_directory / "krb5.conf"
