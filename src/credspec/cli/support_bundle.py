"""``credspec support-bundle``: one archive for support."""

from __future__ import annotations

import json
from pathlib import Path

import click

from credspec.cli.help_text import examples


@click.command(
    "support-bundle",
    epilog=examples(
        "credspec support-bundle",
        "credspec support-bundle --path /root/host1.tar.gz",
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("credspec-support.tar.gz"),
    show_default=True,
    help="Where to write it; a file that is there stays.",
)
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def support_bundle(path: Path, output: str) -> None:
    """Write an archive with diagnostics of this host for support.

    It has versions, the configuration without secrets, the output of check and status, the last
    lines of the audit log and of the journal, units and engines. It has no key, no password and no
    ticket; only its owner may read it. Run it as root to have all of it.
    """
    from credspec.config.host import Config, load_config
    from credspec.doctor.support_bundle import make_bundle
    from credspec.errors import UsageError
    from credspec.installation import program

    try:
        config = load_config()
    except UsageError:
        config = Config()  # the archive says what is wrong with it
    make_bundle(path, config, program=program())
    if output == "json":
        click.echo(json.dumps({"path": str(path.absolute())}))
        return
    click.echo(str(path.absolute()))
    click.echo(f"It names hosts, domains and accounts; look at it first: tar xzOf {path}", err=True)
