"""``New-CredentialSpec`` and ``Get-CredentialSpec``, with PowerShell's own parameters."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NoReturn

from credspec.cli.new import NewSpecRequest, make_credential_spec
from credspec.cli.powershell_arguments import Parameter, Value, parse_arguments
from credspec.errors import CredspecError, ExitStatus, UsageError

_NEW_PARAMETERS: Final = (
    Parameter("AccountName", positional=True, mandatory=True),
    Parameter("Path"),
    Parameter("FileName", aliases=("Name",)),
    Parameter("Domain"),
    Parameter("AdditionalAccounts", array=True),
    Parameter("NoClobber", switch=True),
)
_NEW_HELP: Final = """\
New-CredentialSpec: make a credential spec for a group Managed Service Account.

  New-CredentialSpec [-AccountName] NAME [-FileName NAME | -Path FILE] [-Domain NAME]
                     [-AdditionalAccounts NAME,@{AccountName='NAME';Domain='NAME'}] [-NoClobber]

Without -Path the file goes into the spec directory, named NETBIOS_ACCOUNT.json.

Examples:
  New-CredentialSpec -AccountName WebApp01 -Path ./www.json
  New-CredentialSpec WebApp01 -AdditionalAccounts LogAgent01,LogAgent02
"""
_GET_HELP: Final = """\
Get-CredentialSpec: list the credential specs of the spec directory.

Example:
  Get-CredentialSpec
"""


def new_credential_spec() -> NoReturn:
    """Run ``New-CredentialSpec`` with the process's arguments."""
    _run("New-CredentialSpec", _NEW_HELP, _new)


def get_credential_spec() -> NoReturn:
    """Run ``Get-CredentialSpec`` with the process's arguments."""
    _run("Get-CredentialSpec", _GET_HELP, _get)


def _run(name: str, help_text: str, command: Callable[[Sequence[str]], list[Path]]) -> NoReturn:
    # What libldap reads at its start stands before anything loads it.
    from credspec.cli.main import set_libldap_environment

    set_libldap_environment()
    arguments = sys.argv[1:]
    if {a.lower() for a in arguments} & {"-?", "-h", "-help", "--help"}:
        sys.stdout.write(help_text)
        sys.exit(ExitStatus.OK)
    try:
        sys.stdout.write(_table(command(arguments)))
    except CredspecError as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"{name}: {line}\n")
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(ExitStatus.OK)


def _new(arguments: Sequence[str]) -> list[Path]:
    given = parse_arguments(_NEW_PARAMETERS, arguments)
    words = given.words
    if "Path" in words and "FileName" in words:
        raise UsageError.of(
            "powershell-parameter-set",
            "Parameter set cannot be resolved using the specified named parameters.",
            expected="-Path or -FileName, not both",
        )
    additional = given.arrays.get("AdditionalAccounts", ())
    request = NewSpecRequest(
        account_name=words["AccountName"],
        path=words.get("Path"),
        file_name=words.get("FileName"),
        domain=words.get("Domain"),
        additional_accounts=tuple(_additional(value) for value in additional),
        no_clobber=given.switches.get("NoClobber", False),
    )
    return [make_credential_spec(request)]


def _additional(value: Value) -> tuple[str, str | None]:
    if isinstance(value, str):
        return value, None
    if value.keys() != {"accountname", "domain"}:
        shown = "; ".join(f"{key}={text}" for key, text in value.items())
        raise UsageError.of(
            "powershell-additional-account",
            f"Invalid additional account specified: @{{{shown}}}",
            expected="a samAccountName or a hashtable containing AccountName and Domain keys",
        )
    return value["accountname"], value["domain"]


def _get(arguments: Sequence[str]) -> list[Path]:
    from credspec.agent.config import load_config
    from credspec.spec.spec_directory import SpecDirectory

    parse_arguments((), arguments)
    directory = load_config().spec_directory
    return [directory / name for name in SpecDirectory(directory).names()]


def _table(paths: Sequence[Path]) -> str:
    """Lay out objects with Name and Path as PowerShell does; nothing for none."""
    if not paths:
        return ""
    found = ((_printable(path.name), _printable(str(path))) for path in paths)
    rows = [("Name", "Path"), ("----", "----"), *found]
    width = max(len(name) for name, _ in rows)
    return "\n" + "".join(f"{name:<{width}} {path}\n" for name, path in rows) + "\n"


def _printable(name: str) -> str:
    # File names may hold control characters and bytes that are no text.
    return "".join(c if c.isprintable() else "?" for c in name)
