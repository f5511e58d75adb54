"""``credspec lint``: everything that is wrong or doubtful about credential specs."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

import click

from credspec.cli.help_text import examples
from credspec.cli.lint_files import Linted, files_of, lint_file, parse, print_text, status_of
from credspec.errors import CredspecError, InvalidSpecError, UsageError
from credspec.spec.lint import lint_document


@click.command(
    epilog=examples(
        "credspec lint www.json",
        "credspec lint --fix www.json",
        "credspec lint --output sarif . > findings.sarif",
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", type=click.Path(allow_dash=True)
)
@click.option("--fix", is_flag=True, help="Fix what is safe, in the file itself.")
@click.option("--strict", is_flag=True, help="Let warnings count as errors.")
@click.option(
    "--output", type=click.Choice(["text", "json", "sarif"]), default="text", show_default=True
)
def lint(*, files: tuple[str, ...], fix: bool, strict: bool, output: str) -> int:
    """Report all errors and warnings of credential specs at once.

    FILE is a JSON file in any encoding that Windows writes, a Kubernetes GMSACredentialSpec in
    YAML, a directory (all its *.json), or - for standard input. Each finding has its location, what
    was found, what was expected and how to fix it. Exit status: 0 without errors, also with
    warnings; 3 with an error.
    """
    linted = [_fix(path) if fix else lint_file(path) for path in files_of(files)]
    if output == "json":
        click.echo(json.dumps(_document(linted), indent=2))
    elif output == "sarif":
        from credspec import __version__
        from credspec.spec.sarif import sarif

        click.echo(json.dumps(sarif(__version__, linted), indent=2))
    else:
        print_text(linted)
    status = status_of(linted, strict=strict)
    if status and output == "text" and not status_of(linted, strict=False):
        click.echo("with --strict, warnings count as errors", err=True)
    return status


def _document(linted: list[Linted]) -> dict[str, object]:
    return {
        "files": [
            {
                "file": file.path,
                "findings": [
                    {
                        "severity": str(finding.severity),
                        **finding.problem._asdict(),
                        "fixable": finding.fixable,
                    }
                    for finding in file.findings
                ],
            }
            for file in linted
        ]
    }


def _fix(path: str) -> Linted:
    """Fix a file in place, report what was done, and lint the result.

    With ``-`` the fixed document goes to standard output and what was done to standard error.
    """
    from credspec.spec.fixes import fixed

    before = lint_file(path)
    if not any(finding.fixable for finding in before.findings):
        return before
    if path.lower().endswith((".yaml", ".yml")):
        raise UsageError.of(
            "lint-fix-yaml",
            "YAML is not fixed in place: its comments and layout would be lost",
            where=path,
            remedy="fix it by hand, or convert it: credspec convert --to json",
        )
    try:
        document, done = fixed(parse(path, before.data))
    except InvalidSpecError:
        return before
    text = json.dumps(document, ensure_ascii=False, indent=2) + "\n"
    if path == "-":
        click.echo(text, nl=False)
    else:
        _replace(Path(path), text.encode())
    for line in done:
        click.echo(f"{path}: {line}", err=True)
    return Linted(path, text.encode(), lint_document(document))


def _replace(path: Path, data: bytes) -> None:
    """Write the file whole or not at all, with the mode it had; a link stays one."""
    target = path.resolve()
    temporary = target.with_name(f".credspec-{secrets.token_hex(8)}")
    try:
        mode = target.stat().st_mode & 0o7777
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise CredspecError.of(
            "lint-unwritable", error.strerror or str(error), where=str(path)
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
