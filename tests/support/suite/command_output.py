"""What a failed command has printed, in the report of the test or fixture that ran it."""

from __future__ import annotations

import subprocess

import pytest

_MOST_CHARACTERS = 8000


def add_command_output(report: pytest.TestReport, error: BaseException | None) -> None:
    """Add a section for each of the command's streams, if `error` or a cause of it is of a command.

    The message of ``CalledProcessError`` has the exit status alone.
    """
    while error is not None:
        if isinstance(error, subprocess.CalledProcessError | subprocess.TimeoutExpired):
            for name, printed in (("stdout", error.stdout), ("stderr", error.stderr)):
                text = printed.decode(errors="replace") if isinstance(printed, bytes) else printed
                if text:
                    title = f"{name} of the failed command"
                    report.sections.append((title, text[-_MOST_CHARACTERS:]))
        error = error.__cause__ or error.__context__
