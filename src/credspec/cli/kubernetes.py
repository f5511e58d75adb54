"""``credspec kubernetes``: what runs in a cluster, and what looks at one."""

from __future__ import annotations

import importlib
from typing import Final

import click

from credspec.cli.help_text import examples

# name: (module, attribute, one-line help)
_COMMANDS: Final = {
    "check": (
        "credspec.cli.kubernetes_check",
        "check",
        "Check every step from a pod to its tickets.",
    ),
    "csi-driver": (
        "credspec.cli.kubernetes_csi",
        "csi_driver",
        "Run the CSI node driver, which gives pods' volumes their tickets.",
    ),
    "webhook": (
        "credspec.cli.kubernetes_webhook",
        "webhook",
        "Run the admission webhook, which gives pods their volumes.",
    ),
}


class _Group(click.Group):
    """A group that imports a command when it is first needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)  # noqa: S101
        return command


@click.group(
    cls=_Group,
    epilog=examples("credspec kubernetes check shop/web"),
    context_settings={"help_option_names": ["-h", "--help"]},
)
def kubernetes() -> None:
    """Serve Linux pods of Kubernetes, with the objects that Windows pods use.

    The Helm chart runs the services among these commands in a cluster.
    """
