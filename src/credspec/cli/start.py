"""Where the ``credspec`` command begins.

``credspec lint FILE...`` is what editors and hooks run at every change, so it goes without click,
which would take longer to load than the work takes; ``credspec agent`` would keep it in memory for
ever. Everything else is `credspec.cli.main`.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def main() -> None:
    """Run ``credspec`` and exit."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["lint"] and _are_paths(arguments[1:]):
        sys.exit(_lint(arguments[1:]))
    if arguments[:1] == ["agent"]:
        options = _agent_options(arguments[1:])
        if options is not None:
            sys.exit(_agent(options))
    if arguments[:1] == ["run"]:
        _end_by_interrupts()
    from credspec.cli.main import main as whole

    whole()


def _end_by_interrupts() -> None:
    """Let SIGINT end this process until `credspec.run.supervised_program` takes it over.

    Before that nothing is to be cleaned up, and a KeyboardInterrupt amid an import may come out as
    another error.
    """
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _are_paths(arguments: Sequence[str]) -> bool:
    return bool(arguments) and not any(argument.startswith("-") for argument in arguments)


def _agent_options(arguments: Sequence[str]) -> dict[str, str] | None:
    """Return the options of an agent that runs, None for anything else that may be meant."""
    words = [word for argument in arguments for word in _split(argument)]
    found = dict(zip(words[::2], words[1::2], strict=False))
    names_are_known = found.keys() <= {"--config", "--grpc-compat"}
    values_are_paths = not any(value.startswith("-") or not value for value in found.values())
    is_whole = 2 * len(found) == len(words)
    return found if names_are_known and values_are_paths and is_whole else None


def _split(argument: str) -> list[str]:
    return argument.split("=", 1) if argument.startswith("--") else [argument]


def _agent(options: Mapping[str, str]) -> int:
    import io
    from pathlib import Path

    from credspec.cli.agent_process import run
    from credspec.errors import CredspecError, ExitStatus

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what the terminal's encoding does not have
    config, grpc = options.get("--config"), options.get("--grpc-compat")
    try:
        run(Path(config) if config else None, Path(grpc) if grpc else None)
    except CredspecError as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"credspec: {line}\n")
        return error.exit_status
    except ModuleNotFoundError as error:
        from credspec.cli.main import missing_package

        sys.stderr.write(f"credspec: {missing_package(error)}\n")
        return ExitStatus.OTHER
    except KeyboardInterrupt:
        return 130
    return 0


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
