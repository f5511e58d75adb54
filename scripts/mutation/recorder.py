"""Plug-ins of pytest: which tests run which lines of some files, and a run of picked tests only."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest


class Recorder:
    """Notes for each test how long it takes and which lines of the files it runs.

    What runs in other processes is not seen. `lines` has for a file and a line the tests' ids,
    `seconds` for an id the CPU time, which a busy machine makes no longer; `failed` are the ids of
    tests that fail as it is.
    """

    def __init__(self, files: set[str]) -> None:
        self.lines: dict[str, dict[int, set[str]]] = {file: {} for file in files}
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()
        self._test = ""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Trace a test, with what it sets up and takes down."""
        self._test = item.nodeid
        began = _cpu_seconds()
        threading.settrace(self._trace)
        sys.settrace(self._trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)
            self.seconds[item.nodeid] = _cpu_seconds() - began

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test that fails."""
        if report.failed:
            self.failed.add(report.nodeid)

    def _trace(self, frame: FrameType, _event: str, _argument: object) -> Any:
        lines = self.lines.get(frame.f_code.co_filename)
        if lines is None:
            return None
        lines.setdefault(frame.f_lineno, set()).add(self._test)
        return self._trace


class Picked:
    """Runs only the tests with the given ids, in their order."""

    def __init__(self, ids: list[str]) -> None:
        self._order = {test: at for at, test in enumerate(ids)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out all others."""
        items[:] = sorted(
            (item for item in items if item.nodeid in self._order),
            key=lambda item: self._order[item.nodeid],
        )


def _cpu_seconds() -> float:
    """Return the CPU time of this process and of those it has waited for."""
    return sum(os.times()[:4])
