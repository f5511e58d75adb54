"""``credspec kubernetes csi-driver``: the node driver of pods' volumes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from credspec.cli.help_text import examples
from credspec.cli.listen_address import Address
from credspec.errors import UsageError

if TYPE_CHECKING:
    from credspec.kubernetes.api.server import ApiServer

_FILE = click.Path(dir_okay=False, path_type=Path)
_DIRECTORY = click.Path(file_okay=False, path_type=Path)


@click.command(
    epilog=examples(
        "credspec kubernetes csi-driver --node node1",
        "credspec kubernetes csi-driver --node node1 --kubelet-directory /var/lib/k0s/kubelet",
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--config",
    "config_path",
    type=_FILE,
    help="Configuration file.  [default: $CREDSPEC_CONFIG or /etc/credspec/config.toml]",
)
@click.option("--node", envvar="NODE_NAME", help="Name of this node.  [default: $NODE_NAME]")
@click.option(
    "--kubelet-directory",
    type=_DIRECTORY,
    default=Path("/var/lib/kubelet"),
    show_default=True,
    help="The kubelet's --root-dir, at the same path here.",
)
@click.option(
    "--review-seconds",
    type=click.FloatRange(10, 86400),
    default=600.0,
    show_default=True,
    help="How often it is asked whether a living pod may keep its tickets.",
)
@click.option(
    "--node-run-directory",
    type=_DIRECTORY,
    help="Another path of the agent's run directory: by it, the directory is removed when agent "
    "and driver have ended and nothing is in it.  [default: it stays]",
)
@click.option(
    "--metrics-listen",
    type=Address(),
    help="Where /metrics of driver and agent is served, without TLS.  [default: nowhere]",
)
@click.option("--api-server", help="URL of the API server.  [default: as in every pod]")
@click.option("--ca-file", type=_FILE, help="Its certificate authority, with --api-server.")
@click.option("--token-file", type=_FILE, help="The driver's token, with --api-server.")
def csi_driver(
    *,
    config_path: Path | None,
    node: str | None,
    kubelet_directory: Path,
    review_seconds: float,
    node_run_directory: Path | None,
    metrics_listen: tuple[str, int] | None,
    api_server: str | None,
    ca_file: Path | None,
    token_file: Path | None,
) -> None:
    """Run the CSI node driver: pods with a volume of credspec.dev get their tickets.

    Runs on each node, beside the agent, as root with CAP_SYS_ADMIN, until SIGTERM. At each publish
    it asks the API server whether the pod's service account may use the GMSACredentialSpec.
    """
    if not node:
        raise UsageError.of("csi-node", "no name of this node", where="--node")
    api = _api_server(api_server, ca_file, token_file)
    # Programs that a library starts must not take gRPC's own handlers along.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    from credspec.config.host import load_config
    from credspec.kubernetes.csi.server import DriverSettings, serve
    from credspec.service.events import set_log_format
    from credspec.service.process_safety import forbid_core_dumps
    from credspec.service.signals import handle_signals

    config = load_config(config_path)
    forbid_core_dumps()
    os.umask(0o077)
    set_log_format(config.log_format)
    settings = DriverSettings(
        node=node,
        api=api,
        kubelet_directory=kubelet_directory.absolute(),
        review_seconds=review_seconds,
        node_run_directory=node_run_directory,
        metrics=metrics_listen,
    )

    async def run() -> None:
        stop = asyncio.Event()
        handle_signals(stop.set)
        await serve(config, settings, stop)

    asyncio.run(run())


def _api_server(url: str | None, ca_file: Path | None, token_file: Path | None) -> ApiServer:
    from credspec.kubernetes.api.server import ApiServer, in_cluster

    if url is None and ca_file is None and token_file is None:
        return in_cluster()
    if url is None or ca_file is None or token_file is None or not url.startswith("https://"):
        raise UsageError.of(
            "csi-api-server",
            "--api-server, --ca-file and --token-file belong together",
            expected="all three, the first as https://HOST:PORT, or none of them in a pod",
        )
    return ApiServer(url.rstrip("/"), ca_file, token_file)
