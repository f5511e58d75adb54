"""The agent as a process: its surroundings made safe, its parts put together, served until told."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

from aiohttp import web

from credspec.agent.api import make_api
from credspec.agent.audit import AuditLog
from credspec.agent.config import Config
from credspec.agent.domain_session import DomainSession
from credspec.agent.events import Event, emit
from credspec.agent.host_identity import HOST_CACHE, HostIdentity, MachineKeytab
from credspec.agent.identities import Identities, Identity
from credspec.agent.journal import Journal
from credspec.agent.leases import Leases
from credspec.agent.process_safety import (
    CAPABILITIES,
    drop_capabilities,
    forbid_core_dumps,
    limit_memory,
    lock_memory,
    overwrite_freed_memory,
)
from credspec.agent.provided_identity import ProvidedIdentity, account_of_configuration
from credspec.agent.service_notification import keep_watchdog_quiet, notify
from credspec.agent.service_sockets import inherited_listener
from credspec.directory.connection import LIBLDAP_ENVIRONMENT
from credspec.directory.locator import DnsResolver, Locator
from credspec.errors import CredspecError, NotPermittedError, UsageError
from credspec.kerberos.keys import Enctype, derive_key
from credspec.kerberos.krb5_conf import AgentKrb5Conf
from credspec.providers.host_account import HostSource
from credspec.providers.selection import Providers

_SWEEP_SECONDS: Final = 30.0


def prepare_process(config: Config) -> bool:
    """Set what must stand before any native library is used; call once, at the very start.

    Freed memory is overwritten (the program starts over for that), no core dumps, no ptrace by
    others, a limit on memory, no swap, no capability but those needed; a private credential cache
    in memory, our own krb5.conf in front of the system's, and an umask that shares nothing.
    Returns whether swap could be ruled out.
    """
    overwrite_freed_memory()
    os.umask(0o077)
    forbid_core_dumps()
    limit_memory()
    _make_directories(config)
    is_locked = lock_memory()
    drop_capabilities(CAPABILITIES)
    system = os.environ.get("KRB5_CONFIG") or "/etc/krb5.conf"
    os.environ |= LIBLDAP_ENVIRONMENT | {
        "KRB5CCNAME": HOST_CACHE,
        "KRB5_CONFIG": f"{_krb5_conf_path(config)}:{system}",
    }
    return is_locked


@asynccontextmanager
async def _nothing_beside(_: Leases) -> AsyncIterator[None]:
    yield


async def serve(
    config: Config,
    beside: Callable[[Leases], AbstractAsyncContextManager[None]] = _nothing_beside,
) -> None:
    """Serve until SIGTERM or SIGINT; leases are kept for the next run to adopt.

    `beside` serves the leases in another way meanwhile.

    Raises:
        UsageError: `agent-running` if another agent has the socket.
        NotPermittedError: the host identity cannot be used at all.
    """
    _load_libraries()
    krb5_conf = AgentKrb5Conf(_krb5_conf_path(config))
    host_identity = MachineKeytab(config.keytab, config.principal)
    home = _home_domain(config, host_identity)
    providers = Providers(config.providers)
    default = account_of_configuration(config)
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
        # What happens on the way to another domain must not take this one's tickets along.
        cache = f"MEMORY:credspec-host-{domain}"
        return MachineKeytab(config.keytab, config.principal, cache=cache)

    identities = Identities(
        lambda domain, source: _open_session(
            config,
            identity_for(source, domain),
            krb5_conf,
            domain,
        ),
        renewed,
    )
    leases = Leases(
        identities,
        Journal(config.journal_directory),
        leases_directory=config.leases_directory,
        spec_directory=config.spec_directory,
        audit=AuditLog(config.audit_log),
        policy=config.policy,
        providers=providers,
    )
    api = make_api(
        leases,
        identities,
        policy=config.policy,
        readiness=lambda: _what_hinders(config, identities, home),
    )
    runner = web.AppRunner(api, access_log=None, handle_signals=False)
    await runner.setup()
    others = bool(config.policy.uids)
    inherited = inherited_listener(config.agent_socket)
    if inherited is not None:
        config.agent_socket.chmod(0o666 if others else 0o600)
    listener = inherited or listen(config.agent_socket, others=others)
    try:
        await web.SockSite(runner, listener).start()
        leases.adopt()
        async with beside(leases):
            watchdog = asyncio.create_task(keep_watchdog_quiet())
            notify("READY=1", f"STATUS={len(leases.all())} leases adopted")
            emit(Event.AGENT_READY, socket=str(config.agent_socket), leases=len(leases.all()))
            await _until_told(leases)
            notify("STOPPING=1")
            watchdog.cancel()
    finally:
        if inherited is None:
            config.agent_socket.unlink(missing_ok=True)
        await runner.cleanup()
        await identities.close()
    emit(Event.AGENT_STOPPED)


def _home_domain(config: Config, host_identity: MachineKeytab) -> str | None:
    """Return the domain that the host is joined to, None for a host that has providers alone."""
    try:
        # A missing keytab is told at the start, not when the first container fails.
        emit(Event.HOST_IDENTITY, principal=host_identity.name)
    except NotPermittedError as error:
        if error.code != "host-keytab-missing" or not config.providers.enabled:
            raise
        emit(Event.HOST_NOT_JOINED, providers=list(config.providers.enabled))
        return None
    return host_identity.domain


def _what_hinders(config: Config, identities: Identities, home: str | None) -> list[str]:
    """Say what stands in the way of making a lease now."""
    reasons = [
        f"domain {status.domain} does not answer since {status.outage_since:%Y-%m-%d %H:%M:%S} UTC"
        for status in identities.domains()
        if status.outage_since is not None and (status.domain, status.source) == (home, "")
    ]
    for what, path in (
        ("journal", config.journal_directory),
        ("audit log", config.audit_log if config.audit_log.exists() else config.audit_log.parent),
    ):
        if not os.access(path, os.W_OK):
            reasons.append(f"{what} {path} cannot be written")
    if home is not None and not os.access(config.keytab, os.R_OK):
        reasons.append(f"host keytab {config.keytab} cannot be read")
    return reasons


def _open_session(
    config: Config, host_identity: HostIdentity, krb5_conf: AgentKrb5Conf, domain: str
) -> DomainSession:
    return DomainSession(
        domain,
        host_identity=host_identity,
        locator=Locator(DnsResolver()),
        transport=config.transport,
        ca_file=config.ca_file,
        krb5_conf=krb5_conf,
    )


async def _until_told(leases: Leases) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _SWEEP_SECONDS)
        await leases.sweep()


def _load_libraries() -> None:
    """Load what is slow to load now, not while the first container waits."""
    for name in ("bonsai", "dns.resolver", "krb5"):
        importlib.import_module(name)
    derive_key(b"", Enctype.AES256_CTS_HMAC_SHA1_96, "")


def listen(path: Path, *, others: bool) -> socket.socket:
    """Take the socket's place, unless a living agent has it; `others` than root may connect.

    Raises:
        UsageError: `agent-running`.
        CredspecError: `agent-socket-missing` if this process may make no Unix socket.
    """
    try:
        other = socket.socket(socket.AF_UNIX)
    except OSError as error:
        raise CredspecError.of(
            "agent-socket-missing",
            f"cannot make a Unix socket ({error.strerror}), and systemd passed none",
            where=str(path),
            remedy="run `systemctl start credspec-agent.socket`",
        ) from None
    with other:
        try:
            other.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
        else:
            raise UsageError.of("agent-running", "another agent answers there", where=str(path))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))  # the umask makes it root's alone
    if others:
        # Who of them is heard is decided by the kernel's word on each caller.
        path.chmod(0o666)
    listener.listen(512)
    return listener


def _make_directories(config: Config) -> None:
    if not config.run_directory.is_dir():
        config.run_directory.mkdir(parents=True)
        # Users of containers pass through it, whatever the umask.
        config.run_directory.chmod(0o755)
    config.journal_directory.mkdir(mode=0o700, exist_ok=True)
    config.leases_directory.mkdir(mode=0o711, exist_ok=True)
    # Users of containers pass through to their own, which is theirs alone.
    config.leases_directory.chmod(0o711)
    config.audit_log.parent.mkdir(mode=0o750, parents=True, exist_ok=True)


def _krb5_conf_path(config: Config) -> Path:
    return config.run_directory / "krb5.conf"
