"""``credspec account-provider``: host accounts for Windows hosts with Rancher's plug-in."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from credspec.cli.help_text import examples

if TYPE_CHECKING:
    from credspec.admission import AdmissionReport
    from credspec.providers.account_service import AccountService, AccountServiceSettings


@click.command(
    "account-provider",
    epilog=examples("credspec account-provider --check"),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Configuration file.  [default: $CREDSPEC_CONFIG or /etc/credspec/config.toml]",
)
@click.option("--check", is_flag=True, help="Only validate the configuration.")
def account_provider(config_path: Path | None, *, check: bool) -> None:
    """Serve Rancher's account provider API, by [account_provider] in the configuration.

    Clients prove who they are by a certificate of one authority; each gets one secret. Runs until
    SIGTERM or Ctrl-C.
    """
    from credspec.agent.config import DEFAULT_CONFIG_PATH, load_config
    from credspec.agent.events import configure_logging
    from credspec.agent.process_safety import forbid_core_dumps, lock_memory, overwrite_freed_memory
    from credspec.agent.signals import survive_signals
    from credspec.errors import UsageError
    from credspec.providers.account_service import AccountService, account_service_settings

    config = load_config(config_path)
    if check and not config.account_provider:
        raise UsageError.of(
            "account-provider-missing",
            "there is no [account_provider] in the configuration",
            where=str(config_path or DEFAULT_CONFIG_PATH),
            remedy="docs/providers.md has an example",
        )
    settings = account_service_settings(config.account_provider)
    if not check:
        overwrite_freed_memory()
        survive_signals()
        os.umask(0o077)
        forbid_core_dumps()
        lock_memory()
    configure_logging(config.log_format)
    service = AccountService(settings, _tell, _report)
    if check:
        click.echo(f"{len(settings.clients)} clients can be served.")
        return
    asyncio.run(_serve(service, settings))


def _tell(client: str, secret: str, given: bool) -> None:
    from credspec.agent.events import Event, emit

    event = Event.ACCOUNT_GIVEN if given else Event.ACCOUNT_REFUSED
    emit(event, client=client, secret=secret)


def _report(report: AdmissionReport) -> None:
    from credspec.agent.events import Event, emit

    emit(Event.REQUEST_FAILED, path="connections", error=str(report))


async def _serve(service: AccountService, settings: AccountServiceSettings) -> None:
    from credspec.agent.events import Event, emit
    from credspec.agent.signals import handle_signals

    stop = asyncio.Event()
    handle_signals(stop.set)
    server = await service.start()
    port = server.sockets[0].getsockname()[1]
    emit(Event.ACCOUNT_PROVIDER_READY, address=f"{settings.host}:{port}")
    await stop.wait()
    server.close()
    await server.wait_closed()
