"""The executables that container engines run: Python without its site, then the shim or a hook.

The launcher is where they get their settings from; a configuration file would have to be read at
every step of every container's life. For the shim it is a shell's script as well, which runs the
real runtime at the steps that need no Python, whose start takes longer than they do: `create` of a
bundle without any mark of a spec, `delete`, and what is not listed. It evaluates nothing that it is
given, and reads no ticket; whatever it cannot tell for sure is Python's.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import credspec
from credspec.contract.names import REAL_RUNTIMES, runtime_paths
from credspec.contract.start_wait import DEFAULT_SECONDS
from credspec.contract.ticket_options import OPTIONS, short_name
from credspec.errors import UsageError

NAME: Final = "credspec-runtime"
LAUNCHER_DIRECTORY: Final = Path("/usr/local/libexec/credspec")
_MAX_SHEBANG_BYTES: Final = 255  # BINPRM_BUF_SIZE of Linux

_STEPS: Final = ("run", "checkpoint", "restore")


_BETWEEN: Final = '[^a-z0-9"=]*'


def _spelt(word: str) -> str:
    """Return a pattern of a word, whatever stands between its letters."""
    return _BETWEEN.join(word)


# Names of members or variables that may be ours in any spelling, for grep in lower and upper case:
# the shim refuses what is merely close, so it must see it.
_NAME_END: Final = '[^"=]*(=|"[[:space:]]*(:|$))'
_OPTION_NAMES: Final = "|".join(_spelt(short_name(annotation)) for annotation, _ in OPTIONS)
_MARKS: Final = "|".join(
    (
        f"{_spelt('credspecdev')}{_NAME_END}",
        f'"{_BETWEEN}{_spelt("credspec")}({_BETWEEN}({_OPTION_NAMES}))?{_BETWEEN}=',
        f'"{_BETWEEN}{_spelt("credentialspec")}{_NAME_END}',
        f"([^ -~]|\\\\|%[0-9a-f][0-9a-f]){_NAME_END}",
        # Variables and mounts of tickets, without a name of credspec's.
        '"[^"]*/run/[^"]*credspec',
    )
)

_SHELL: Final = """\
#!/bin/sh
'''':
# Written by `credspec setup`; its --undo removes it. Python takes this part for a text.
step= bundle= root= before=
for each do
    case $before in
        --bundle | -b) bundle=$each ;;
        --root) [ -n "$step" ] || root=$each ;;
    esac
    case $each in
        create | delete) step=${{step:-$each}} ;;
        {steps}) step=python ;;
    esac
    before=$each
done
case $step in
    create)
        LC_ALL=C grep -Eiqs -e {marks} -- "$bundle/config.json"
        [ $? = 1 ] && step=
        ;;
    delete)
        # A lease has its directory, which is named after the runtime's own of the container.
        while [ "$root" != "${{root%/}}" ]; do root=${{root%/}}; done
        case $each in *[!0-9A-Za-z._-]* | -*) root= ;; esac
        if [ -n "$root" ] && [ -w {leases} ]; then
            id=$(printf %s "$root/$each" | b2sum --length 128 2>/dev/null)
            id=${{id%% *}}
            if [ ${{#id}} != 32 ]; then
                :
            elif [ ! -e {leases}/"$id" ]; then
                step=
            elif command -v umount >/dev/null; then
                step=end
            fi
        fi
        ;;
esac
if [ "$step" = end ]; then
    for runtime in {runtimes}; do
        [ -x "$runtime" ] || continue
        "$runtime" "$@"
        status=$?
        [ -d "$root/$each" ] && exit $status
        # Files first: they would outlive the mount where another namespace has it, too. That the
        # directory goes is what the agent hears of.
        rm -f -- {leases}/"$id"/* {leases}/"$id"/.[!.]* 2>/dev/null
        umount {leases}/"$id" 2>/dev/null || umount -l {leases}/"$id" 2>/dev/null
        rmdir {leases}/"$id" 2>/dev/null
        exit $status
    done
fi
if [ -z "$step" ]; then
    for runtime in {runtimes}; do
        [ -x "$runtime" ] && exec "$runtime" "$@"
    done
fi
if [ "$step" = delete ] && [ ! -x {interpreter} ]; then
    # credspec was removed while its containers ran; they must be able to end.
    for runtime in {runtimes}; do
        [ -x "$runtime" ] && exec "$runtime" "$@"
    done
fi
exec {interpreter} -IS "$0" "$@"
'''
"""

_PYTHON: Final = """\
#!{interpreter} -IS
# Written by `credspec setup`; its --undo removes it.
"""

_PROGRAM: Final = """\
import sys

sys.path.insert(0, {package!r})  # first, so that the shim is found without a search
from credspec.shim.{module} import main

sys.path.append(sys.path.pop(0))

{call}
"""

_CALL: Final = "main(run_directory={run_directory!r}{more})"
_RUNTIMES_CALL: Final = f"""\
try:
    {_CALL}
except SystemExit as end:
    # What an interpreter takes apart at its end goes with the process.
    if not isinstance(end.code, int):
        raise
    import posix

    sys.stderr.flush()
    posix._exit(end.code)"""


def launcher_text(
    run_directory: Path,
    runtimes: Sequence[str] = REAL_RUNTIMES,
    *,
    wait_seconds: float = DEFAULT_SECONDS,
    interpreter: Path | None = None,
    package: Path | None = None,
) -> str:
    """Return the launcher of the shim, this installation's or another.

    `run_directory` is the agent's, `runtimes` are names or absolute paths of real runtimes;
    `wait_seconds` is for how long a start waits for an agent or a domain that is not there yet.
    `interpreter` runs the shim, which it imports from the directory `package`; default is what
    runs this program.

    Raises:
        UsageError: as `hook_launcher_text`.
    """
    more = f", runtimes={tuple(runtimes)!r}"
    program = _program("runtime", run_directory, more, wait_seconds, package, call=_RUNTIMES_CALL)
    shell = _SHELL.format(
        interpreter=shlex.quote(_interpreter() if interpreter is None else str(interpreter)),
        steps="|".join(_STEPS),
        marks=shlex.quote(_MARKS),
        runtimes=" ".join(map(shlex.quote, runtime_paths(runtimes))),
        leases=shlex.quote(f"{run_directory.absolute()}/leases"),
    )
    return shell + program


def hook_launcher_text(run_directory: Path, *, wait_seconds: float = DEFAULT_SECONDS) -> str:
    """Return the launcher of this installation's Podman hook; `wait_seconds` as `launcher_text`.

    Raises:
        UsageError: `launcher-interpreter` if the kernel cannot start this interpreter by a
            shebang line.
    """
    head = _PYTHON.format(interpreter=_interpreter())
    return head + _program("podman_hook", run_directory, "", wait_seconds)


def _interpreter() -> str:
    interpreter = sys.executable
    if len(interpreter.split()) != 1 or len(f"#!{interpreter} -IS".encode()) > _MAX_SHEBANG_BYTES:
        raise UsageError.of(
            "launcher-interpreter",
            interpreter,
            where="Python interpreter",
            expected="a path without spaces, of at most 250 bytes",
            remedy="install credspec elsewhere",
        )
    return interpreter


def _package_directory() -> Path:
    """Return the directory with the package, by a path that does not name Python's version.

    Distribution packages have such a link, so that a launcher works after the upgrade to a release
    with another Python.
    """
    directory = Path(credspec.__file__).parents[1]
    link = Path(sys.prefix, "site-packages")
    return link if link.exists() and link.samefile(directory) else directory


def _program(
    module: str,
    run_directory: Path,
    more: str,
    wait_seconds: float,
    package: Path | None = None,
    *,
    call: str = _CALL,
) -> str:
    return _PROGRAM.format(
        package=str(package or _package_directory()),
        module=module,
        call=call.format(
            run_directory=str(run_directory.absolute()),
            more=f"{more}, wait_seconds={float(wait_seconds)!r}",
        ),
    )
