"""How the tests themselves are spread over workers, tried on small suites in a folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.suite import parallel

TESTS = Path(parallel.__file__).parents[2]


def run(folder: Path, **files: str) -> str:
    """Run the files as a suite with two workers; return what pytest prints."""
    hook = "from support.suite.parallel import make_scheduler as pytest_xdist_make_scheduler\n"
    (folder / "conftest.py").write_text(f"import sys\nsys.path.insert(0, {str(TESTS)!r})\n{hook}")
    (folder / "pytest.ini").write_text("[pytest]\n")
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-n", "2", "-v", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-p", "xdist", str(folder)],
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # for a quick start
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    return done.stdout + done.stderr


def test_a_file_runs_in_one_worker_and_both_work(tmp_path: Path) -> None:
    text = "import pytest\n@pytest.mark.parametrize('n', range(6))\ndef test_it(n): pass\n"
    shown = run(tmp_path, **{f"test_{name}": text for name in "abcd"})
    assert "24 passed" in shown
    where: dict[str, set[str]] = {}
    for worker, file in re.findall(r"\[(gw\d)\].* PASSED (test_.)\.py", shown):
        where.setdefault(file, set()).add(worker)
    assert [len(workers) for workers in where.values()] == [1, 1, 1, 1]
    assert set.union(*where.values()) == {"gw0", "gw1"}


def test_a_worker_that_dies_is_a_failure_of_the_test_that_killed_it(tmp_path: Path) -> None:
    text = "import os\ndef test_before(): pass\ndef test_kills(): os._exit(0)\n"
    text += "def test_after(): pass\n"
    shown = run(tmp_path, test_a=text, test_b="def test_other(): pass\n")
    assert re.search(r"FAILED test_a\.py::test_kills", shown), shown
    assert "1 failed, 3 passed" in shown


def test_files_that_share_something_are_there_and_run_together() -> None:
    for file, name in parallel.TOGETHER.items():
        assert (TESTS.parent / file).exists(), file
        assert parallel.scope_of(f"{file}::test_x[a::b]") == name
    for file in parallel.LONGEST:
        assert (TESTS.parent / file).exists(), file
    assert parallel.scope_of("tests/unit/test_x.py::test_y") == "tests/unit/test_x.py"


@pytest.mark.parametrize("worker", [None, "gw0", "gw12"])
def test_labs_of_workers_have_names_of_their_own(
    worker: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    if worker is not None:
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
    assert parallel.worker_number() == (worker and worker[2:])


def test_workers_have_every_signals_default(tmp_path: Path) -> None:
    conftest = (TESTS / "conftest.py").read_text()
    resets = conftest[conftest.index("# A shell that starts") :]
    text = (
        "import signal\n" + resets[: resets.index("\n\n")] + "\ndef test_signals():\n"
        "    for number in set(signal.Signals) - {signal.SIGPIPE, signal.SIGXFSZ}:\n"
        "        assert signal.getsignal(number) != signal.SIG_IGN, number\n"
    )
    assert "1 passed" in (shown := run_ignoring(tmp_path, test_a=text)), shown


def run_ignoring(folder: Path, **files: str) -> str:
    """Run a suite as a shell starts it in the background."""
    numbers = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        return run(folder, **files)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
