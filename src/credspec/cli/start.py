"""Where the ``credspec`` command begins.

``credspec lint FILE...`` is what editors and hooks run at every change, so it goes without click,
which would take longer to load than the work takes. Everything else is `credspec.cli.main`.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main() -> None:
    """Run ``credspec`` and exit."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["lint"] and _are_paths(arguments[1:]):
        sys.exit(_lint(arguments[1:]))
    if arguments[:1] == ["run"]:
        _end_by_interrupts()
    from credspec.cli.main import main as whole

    whole()


def _end_by_interrupts() -> None:
    """Let SIGINT end this process until `credspec.runtimes.supervised_program` takes it over.

    Before that nothing is to be cleaned up, and a KeyboardInterrupt amid an import may come out as
    another error.
    """
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _are_paths(arguments: Sequence[str]) -> bool:
    return bool(arguments) and not any(argument.startswith("-") for argument in arguments)


def _lint(paths: Sequence[str]) -> int:
    import os

    from credspec.cli.lint_files import run_plain
    from credspec.errors import CredspecError, ExitStatus

    try:
        status = run_plain(paths)
        sys.stdout.flush()
    except CredspecError as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"credspec: {line}\n")
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitStatus.OTHER
    return status
