"""``credspec kubernetes check``: why a pod has no identity."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from credspec.cli.help_text import examples
from credspec.printable import printable

if TYPE_CHECKING:
    from credspec.kubernetes.check.steps import Result

_MARKS: Final = {"ok": "ok", "failed": "FAIL", "skipped": "-"}
_COLOURS: Final = {"ok": "green", "failed": "red", "skipped": None}


@click.command(
    epilog=examples(
        "credspec kubernetes check shop/web",
        "kubectl credspec check shop/web-7d4b9 --context production",
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("pod", metavar="[NAMESPACE/]POD")
@click.option("--namespace", "-n", help="Of the pod.  [default: default]")
@click.option("--context", help="Of kubectl's configuration.")
@click.option("--kubeconfig", type=click.Path(dir_okay=False), help="Kubectl's configuration.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def check(
    *, pod: str, namespace: str | None, context: str | None, kubeconfig: str | None, output: str
) -> None:
    """Check every step from a pod to its tickets, and name the first cause.

    Looks at the pod, the webhook, the GMSACredentialSpec, who may use it, the CSI driver on the
    node, the volume, and lets the agent of the node check the domain. It asks by kubectl.
    """
    from credspec.errors import UsageError
    from credspec.kubernetes.check.kubectl import Kubectl
    from credspec.kubernetes.check.steps import Evidence, examine
    from credspec.kubernetes.objects.names import is_spec_name

    before, slash, name = pod.rpartition("/")
    used = (before if slash else namespace) or "default"
    if (
        not is_spec_name(name)
        or not is_spec_name(used)
        or (slash and namespace not in {None, used})
    ):
        raise UsageError.of(
            "kubernetes-pod-name",
            f"{pod[:80]!r} names no pod",
            where="POD",
            expected="NAMESPACE/POD, or POD with --namespace",
        )
    options = [f"--context={context}"] if context else []
    options += [f"--kubeconfig={kubeconfig}"] if kubeconfig else []
    evidence = Evidence(view=Kubectl(options), namespace=used, name=name, now=datetime.now(UTC))
    results = examine(evidence)
    first = next((each for each in results if each.error is not None), None)
    if output == "json":
        _print_json(results, first)
    else:
        _print_text(results, first)
    if first is not None and first.error is not None:
        raise click.exceptions.Exit(first.error.exit_status)


def _print_text(results: list[Result], first: Result | None) -> None:
    for each in results:
        mark = click.style(f"{_MARKS[each.state]:<4}", fg=_COLOURS[each.state])
        lines = each.text.splitlines() or [""]
        click.echo(f"{mark}  {each.name}: {printable(lines[0])}")
        for line in lines[1:]:
            click.echo(f"      {printable(line)}")
    click.echo("\nAll is well." if first is None else f"\nFirst cause: {first.name}")


def _print_json(results: list[Result], first: Result | None) -> None:
    document = {
        "ok": first is None,
        "first_cause": None if first is None else first.name,
        "steps": [
            {
                "name": each.name,
                "state": each.state,
                "text": each.text,
                "problems": [] if each.error is None else each.error.to_json()["problems"],
            }
            for each in results
        ],
    }
    click.echo(json.dumps(document, indent=2))


def kubectl_plugin() -> None:
    """Run as ``kubectl credspec``, which has the commands that look at a cluster."""
    from credspec.cli.main import run_command

    run_command(_plugin, prog_name="kubectl credspec")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def _plugin() -> None:
    """Look at the identities of Linux pods."""


_plugin.add_command(check, "check")
