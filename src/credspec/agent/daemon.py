"""The agent as a process: its surroundings made safe, its parts put together, served until told."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web

from credspec.agent.api import make_api
from credspec.agent.config import Config
from credspec.agent.domain_session import DomainSession
from credspec.agent.host_identity import HOST_CACHE, HostIdentity, MachineKeytab
from credspec.agent.identities import Identities, Identity
from credspec.agent.journal import Journal
from credspec.agent.leases import Leases
from credspec.directory.connection import LIBLDAP_ENVIRONMENT
from credspec.directory.locator import DnsResolver, Locator
from credspec.errors import UsageError
from credspec.kerberos.krb5_conf import AgentKrb5Conf

_PR_SET_DUMPABLE: Final = 4  # prctl(2)
_SWEEP_SECONDS: Final = 30.0

_log = structlog.get_logger()


def prepare_process(config: Config) -> None:
    """Set what must stand before any native library is used; call once, at the very start.

    No core dumps, no ptrace by others, private credential cache in memory, our own krb5.conf in
    front of the system's, and an umask that shares nothing.
    """
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    _make_directories(config)
    system = os.environ.get("KRB5_CONFIG") or "/etc/krb5.conf"
    os.environ |= LIBLDAP_ENVIRONMENT | {
        "KRB5CCNAME": HOST_CACHE,
        "KRB5_CONFIG": f"{_krb5_conf_path(config)}:{system}",
    }


def configure_logging() -> None:
    """Log to standard error, one line an event, keys and values."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.KeyValueRenderer(
                key_order=["timestamp", "level", "event"], sort_keys=True
            ),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


async def serve(config: Config) -> None:
    """Serve until SIGTERM or SIGINT; leases are kept for the next run to adopt.

    Raises:
        UsageError: `agent-running` if another agent has the socket.
        NotPermittedError: the host identity cannot be used at all.
    """
    _load_libraries()
    krb5_conf = AgentKrb5Conf(_krb5_conf_path(config))
    host_identity = MachineKeytab(config.keytab, config.principal)
    # A missing keytab is told at the start, not when the first container fails.
    _log.info("host-identity", principal=host_identity.name)
    leases: Leases | None = None

    async def renewed(identity: Identity) -> None:
        if leases is not None:
            await leases.renew(identity)

    identities = Identities(
        lambda domain: _open_session(config, host_identity, krb5_conf, domain), renewed
    )
    leases = Leases(
        identities,
        Journal(config.journal_directory),
        leases_directory=config.leases_directory,
        spec_directory=config.spec_directory,
    )
    runner = web.AppRunner(make_api(leases, identities), access_log=None, handle_signals=False)
    await runner.setup()
    listener = _listen(config.agent_socket)
    try:
        await web.SockSite(runner, listener).start()
        leases.adopt()
        _log.info("agent-ready", socket=str(config.agent_socket))
        await _until_told(leases)
    finally:
        config.agent_socket.unlink(missing_ok=True)
        await runner.cleanup()
        await leases.close()
        await identities.close()
    _log.info("agent-stopped")


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


def _listen(path: Path) -> socket.socket:
    """Take the socket's place, unless a living agent has it."""
    with socket.socket(socket.AF_UNIX) as other:
        try:
            other.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
        else:
            raise UsageError.of("agent-running", "another agent answers there", where=str(path))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))  # the umask makes it root's alone
    listener.listen(512)
    return listener


def _make_directories(config: Config) -> None:
    config.run_directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    for directory in (config.leases_directory, config.journal_directory):
        directory.mkdir(mode=0o700, exist_ok=True)


def _krb5_conf_path(config: Config) -> Path:
    return config.run_directory / "krb5.conf"
