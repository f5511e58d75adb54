"""``credspec schema``: the JSON Schema of credential specs."""

from __future__ import annotations

import click

from credspec.cli.help_text import examples


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples("credspec schema > credential-spec.schema.json"),
)
def schema() -> None:
    """Print the JSON Schema (2020-12) of credential specs, with descriptions.

    It is what every command here checks documents with; editors complete and check with it too.
    """
    from credspec.spec.validation import schema_text

    click.echo(schema_text(), nl=False)
