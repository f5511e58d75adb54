"""``credspec list``: the spec directory."""

from __future__ import annotations

import json
from typing import Any

import click

from credspec.cli.help_text import examples
from credspec.printable import printable


@click.command(
    "list",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples("credspec list --output json"),
)
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def list_specs(output: str) -> None:
    """List the credential specs of the spec directory: domain, accounts, whether they are valid.

    Get-CredentialSpec lists only names and paths, as PowerShell does.
    """
    from credspec.config.host import load_config
    from credspec.spec.spec_directory import SpecDirectory

    directory = SpecDirectory(load_config().spec_directory)
    rows = [_row(directory, name) for name in directory.names()]
    if output == "json":
        click.echo(json.dumps({"directory": str(directory.path), "specs": rows}, indent=2))
        return
    table = [("NAME", "DOMAIN", "ACCOUNTS", "STATE")]
    table += [
        (
            printable(row["name"]),
            row["domain"] or "-",
            ", ".join(row["accounts"]) or "-",
            _state(row),
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in table) for column in range(4)]
    for line in table if rows else []:
        padded = (f"{text:<{width}}" for text, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def _row(directory: Any, name: str) -> dict[str, Any]:
    from credspec.errors import InvalidSpecError
    from credspec.spec.document import CredentialSpec
    from credspec.spec.lint import Severity, lint_bytes

    row: dict[str, Any] = {
        "name": name,
        "path": str(directory.path / name),
        "domain": None,
        "accounts": [],
        "errors": 1,
        "warnings": 0,
        "error": "",
    }
    try:
        data = directory.read(name)
        severities = [finding.severity for finding in lint_bytes(data)]
        row["errors"] = severities.count(Severity.ERROR)
        row["warnings"] = severities.count(Severity.WARNING)
        spec = CredentialSpec.from_bytes(data)
    except InvalidSpecError as error:
        row["error"] = error.problems[0].text()
    else:
        row |= {"domain": spec.domain, "accounts": list(spec.accounts)}
    return row


def _state(row: dict[str, Any]) -> str:
    if row["errors"]:
        return f"{row['errors']} error(s)"
    return f"{row['warnings']} warning(s)" if row["warnings"] else "ok"
