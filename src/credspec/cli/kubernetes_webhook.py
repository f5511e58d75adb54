"""``credspec kubernetes webhook``: the admission webhook."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from credspec.cli.help_text import examples
from credspec.cli.listen_address import Address

_PATH = click.Path(dir_okay=False, path_type=Path)


@click.command(
    epilog=examples(
        "credspec kubernetes webhook --service credspec-webhook --secret credspec-webhook",
        "credspec kubernetes webhook --certificate /tls/tls.crt --key /tls/tls.key",
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--listen", type=Address(), default=":8443", show_default=True, help="Where reviews are taken."
)
@click.option(
    "--health-listen",
    type=Address(),
    default=":8080",
    show_default=True,
    help="Where /healthz, /readyz and /metrics are, without TLS.",
)
@click.option("--certificate", type=_PATH, help="A certificate from elsewhere, in PEM.")
@click.option("--key", type=_PATH, help="Its key, in PEM.")
@click.option("--namespace", help="Of the Service and the Secret.  [default: the pod's]")
@click.option(
    "--service", default="credspec-webhook", show_default=True, help="The Service in front of it."
)
@click.option(
    "--secret",
    default="credspec-webhook",
    show_default=True,
    help="The Secret that replicas keep their own certificate in, without --certificate.",
)
@click.option(
    "--configuration",
    default="credspec-webhook",
    show_default=True,
    help="The webhook configurations that get the authority, without --certificate.",
)
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text")
def webhook(
    *,
    listen: tuple[str, int],
    health_listen: tuple[str, int],
    certificate: Path | None,
    key: Path | None,
    namespace: str | None,
    service: str,
    secret: str,
    configuration: str,
    log_format: str,
) -> None:
    """Run the admission webhook: pods that ask for a credential spec get its volume.

    Runs in a pod, with the rights of its service account, until SIGTERM. It holds no ticket, and no
    security depends on it: the CSI driver checks on the node who may use a spec.
    """
    if (certificate is None) != (key is None):
        raise click.UsageError("--certificate and --key belong together")
    from credspec.kubernetes.api.server import in_cluster
    from credspec.kubernetes.webhook.service import WebhookSettings, run
    from credspec.kubernetes.webhook.serving_certificate import CertificateFiles
    from credspec.service.events import set_log_format
    from credspec.service.process_safety import forbid_core_dumps

    forbid_core_dumps()
    set_log_format(log_format)
    files = None
    if certificate is not None and key is not None:
        files = CertificateFiles(certificate=certificate, key=key)
    settings = WebhookSettings(
        listen=listen,
        health=health_listen,
        files=files,
        namespace=namespace or "",
        service=service,
        secret=secret,
        configuration=configuration,
    )
    asyncio.run(run(settings, in_cluster()))
