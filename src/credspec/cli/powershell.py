"""``New-CredentialSpec`` and ``Get-CredentialSpec``, with PowerShell's own parameters."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NoReturn

from credspec.cli.new import NewSpecRequest, make_credential_spec
from credspec.cli.powershell_arguments import (
    COMMON_PARAMETERS,
    Arguments,
    Parameter,
    Value,
    parse_arguments,
)
from credspec.errors import CredspecError, ExitStatus, UsageError
from credspec.printable import printable

_NEW_PARAMETERS: Final = (
    Parameter("AccountName", positional=True, mandatory=True),
    Parameter("Path"),
    Parameter("FileName", aliases=("Name",)),
    Parameter("Domain"),
    Parameter("AdditionalAccounts", array=True),
    Parameter("NoClobber", switch=True),
    *COMMON_PARAMETERS,
)
_SILENT: Final = frozenset({"silentlycontinue", "ignore"})
_NEW_HELP: Final = """\
New-CredentialSpec: make a credential spec for a group Managed Service Account.

  New-CredentialSpec [-AccountName] NAME [-FileName NAME | -Path FILE] [-Domain NAME]
                     [-AdditionalAccounts NAME,@{AccountName='NAME';Domain='NAME'}] [-NoClobber]

Without -Path the file goes into the spec directory, named NETBIOS_ACCOUNT.json. Logs on with your
Kerberos ticket, or with the machine keytab; `credspec new` has more options. PowerShell's common
parameters are accepted too: -Verbose prints each step, -ErrorAction SilentlyContinue hides errors.

Examples:
  New-CredentialSpec -AccountName WebApp01 -Path ./www.json
  New-CredentialSpec WebApp01 -AdditionalAccounts WebApp02,WebApp03
"""
_GET_HELP: Final = """\
Get-CredentialSpec: list the credential specs of the spec directory.

Example:
  Get-CredentialSpec
"""


def new_credential_spec() -> NoReturn:
    """Run ``New-CredentialSpec`` with the process's arguments."""
    _run("New-CredentialSpec", _NEW_HELP, _NEW_PARAMETERS, _new)


def get_credential_spec() -> NoReturn:
    """Run ``Get-CredentialSpec`` with the process's arguments."""
    _run("Get-CredentialSpec", _GET_HELP, COMMON_PARAMETERS, _get)


def _run(
    name: str,
    help_text: str,
    parameters: Sequence[Parameter],
    command: Callable[[Arguments], list[Path]],
) -> NoReturn:
    from credspec.cli.main import missing_package, replace_what_cannot_be_shown

    replace_what_cannot_be_shown()
    arguments = sys.argv[1:]
    if {a.lower() for a in arguments} & {"-?", "-h", "-help", "--help"}:
        sys.stdout.write(help_text)
        sys.exit(ExitStatus.OK)
    silent = False
    try:
        given = parse_arguments(parameters, arguments)
        silent = given.words.get("ErrorAction", "").lower() in _SILENT
        sys.stdout.write(_table(command(given)))
        sys.stdout.flush()
    except CredspecError as error:
        for line in () if silent else str(error).splitlines():
            sys.stderr.write(f"{name}: {line}\n")
        sys.exit(error.exit_status)
    except ModuleNotFoundError as error:
        sys.stderr.write(f"{name}: {missing_package(error)}\n")
        sys.exit(ExitStatus.OTHER)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitStatus.OTHER)
    sys.exit(ExitStatus.OK)


def _new(given: Arguments) -> list[Path]:
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
    verbose = given.switches.get("Verbose", False)
    if verbose:
        _tell(f"Looking up {request.account_name} in the directory.")
    written = make_credential_spec(request)
    if verbose:
        _tell(f"Wrote {written}.")
    return [written]


def _tell(text: str) -> None:
    sys.stderr.write(f"VERBOSE: {printable(text)}\n")


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


def _get(given: Arguments) -> list[Path]:
    from credspec.config.host import load_config
    from credspec.spec.spec_directory import SpecDirectory

    del given
    directory = load_config().spec_directory
    return [directory / name for name in SpecDirectory(directory).names()]


def _table(paths: Sequence[Path]) -> str:
    """Lay out objects with Name and Path as PowerShell does; nothing for none."""
    if not paths:
        return ""
    found = ((printable(path.name), printable(str(path))) for path in paths)
    rows = [("Name", "Path"), ("----", "----"), *found]
    width = max(len(name) for name, _ in rows)
    return "\n" + "".join(f"{name:<{width}} {path}\n" for name, path in rows) + "\n"
