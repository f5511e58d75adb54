"""Several commands of samba-tool in one process, since its start takes longer than most of them.

Its arguments, passwords among them, are on standard input, where the list of processes does not
show them.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from credspec.errors import CredspecError
from credspec.lab.domain import Lab, run_tool

_SYSTEM_PYTHON: Final = "/usr/bin/python3"
# As samba-tool itself; a failure ends it, and says which command it was.
_PROGRAM: Final = """
import json, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
from samba.netcmd.main import samba_tool
for number, arguments in enumerate(json.load(sys.stdin)):
    if samba_tool(*arguments):
        sys.exit(f"command {number}")
"""


def run_commands(lab: Lab, commands: Sequence[Sequence[str]]) -> None:
    """Run commands of samba-tool on the domain's database, in their order, until one fails.

    Raises:
        CredspecError: `lab-samba-tool`.
    """
    given = json.dumps([[*command, *lab.database_options(command)] for command in commands])
    try:
        run_tool([_interpreter(), "-c", _PROGRAM], given)
    except CredspecError as error:
        found = re.search(r"command (\d+)\W*$", error.problems[0].found)
        failed = commands[int(found[1])] if found else ()
        shown = " ".join(word for word in failed if "=" not in word)
        raise CredspecError.of(
            "lab-samba-tool",
            f"samba-tool {shown}: {error.problems[0].found[-400:]}",
            where="lab",
        ) from None


def _interpreter() -> str:
    """Return the Python that has Samba's modules: that of samba-tool."""
    program = shutil.which("samba-tool")
    if program is not None:
        with Path(program).open("rb") as file:
            words = file.readline().decode("utf-8", "replace").removeprefix("#!").split()
        if len(words) == 1 and words[0].startswith("/"):
            return words[0]
    return _SYSTEM_PYTHON
