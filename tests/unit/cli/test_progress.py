from __future__ import annotations

import io
import time

import pytest

from credspec.cli.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_each_step_has_its_seconds_and_a_pipe_has_no_carriage_returns() -> None:
    stream, times = io.StringIO(), iter([0.0, 1.5, 1.5, 4.0])
    with Progress(stream, clock=lambda: next(times)) as progress:
        progress("Making it")
        progress("Starting it")
    assert stream.getvalue() == "Making it ... 1.5 s\nStarting it ... 2.5 s\n"
    assert progress.steps == 2


def test_a_step_that_failed_has_no_seconds() -> None:
    stream = io.StringIO()

    def interrupted() -> None:
        with Progress(stream, clock=lambda: 0.0) as progress:
            progress("Making it")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert stream.getvalue() == "Making it ...\n"


def test_a_terminal_sees_the_seconds_pass() -> None:
    stream = Terminal()
    with Progress(stream) as progress:
        progress("Making it")
        while "\rMaking it ... 1 s" not in stream.getvalue():
            time.sleep(0.05)
    assert stream.getvalue().endswith(" s\n")


def test_nothing_to_do_prints_nothing() -> None:
    stream = io.StringIO()
    with Progress(stream):
        pass
    assert stream.getvalue() == ""
