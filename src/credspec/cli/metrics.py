"""``credspec metrics``: the agent's metrics, for Prometheus' node_exporter."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from credspec.cli.help_text import examples

_UP: Final = "credspec_agent_up"


@click.command(
    epilog=examples("credspec metrics", "credspec metrics --textfile ./credspec.prom"),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--textfile",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Replace this file, for node_exporter's textfile collector; its name ends in .prom.",
)
def metrics(textfile: Path | None) -> None:
    """Print the agent's metrics in Prometheus' text format, or write them to a file.

    The metric credspec_agent_up is 1, or 0 and alone if the agent does not answer: then the file is
    replaced all the same, so that no old numbers stay, and the exit status says so.
    """
    from credspec.api_client import AgentClient
    from credspec.config.host import load_config
    from credspec.errors import AgentUnreachableError

    client = AgentClient(load_config().agent_socket)
    try:
        text = f"{client.get_text('/metrics')}{_up(1)}"
    except AgentUnreachableError:
        if textfile is not None:
            _replace(textfile, _up(0))
        raise
    if textfile is None:
        click.echo(text, nl=False)
    else:
        _replace(textfile, text)


def _up(value: int) -> str:
    return f"# HELP {_UP} Whether the agent answered.\n# TYPE {_UP} gauge\n{_UP} {value}\n"


def _replace(path: Path, text: str) -> None:
    from credspec.errors import CredspecError, NotPermittedError, UsageError
    from credspec.file_replacement import replace_file

    if path.suffix != ".prom":
        raise UsageError.of(
            "textfile-name",
            f"{path.name!r}",
            where="--textfile",
            expected="a name that ends in .prom; node_exporter reads no others",
        )
    try:
        replace_file(path, text.encode(), mode=0o644)
    except OSError as error:
        kind = NotPermittedError if isinstance(error, PermissionError) else CredspecError
        raise kind.of(
            "textfile-unwritable",
            error.strerror or str(error),
            where=str(path),
            remedy="give a file in the directory of node_exporter's textfile collector",
        ) from None
