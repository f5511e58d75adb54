"""What ``from credspec import ...`` promises, and that its documentation runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import credspec
from credspec.doctor.windows_words import WINDOWS_WORDS

ROOT = Path(__file__).parents[2]


def test_every_public_name_is_there() -> None:
    for name in credspec.__all__:
        assert getattr(credspec, name) is not None
    assert set(credspec.__all__) == set(dir(credspec))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = credspec.nonsense


def test_importing_it_loads_nothing() -> None:
    code = (
        "import sys; before = set(sys.modules); import credspec; print(*set(sys.modules) - before)"
    )
    shown = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.split() == ["credspec"]


def test_the_document_part_needs_no_native_library_of_a_host() -> None:
    code = (
        "import sys\n"
        "for name in ('krb5', 'aiohttp', 'dns', 'prometheus_client'):\n"
        "    sys.modules[name] = None\n"
        "import credspec\n"
        "for name in credspec.__all__: getattr(credspec, name)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_page_on_the_library_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs/library.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 4
    sample = ROOT / "tests/unit/spec/golden/plain.json"
    (tmp_path / "www.json").write_bytes(sample.read_bytes())
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {}
    exec("\n".join(blocks), space)  # noqa: S102 - the page is ours
    assert space["again"] == space["made"]


def test_the_page_on_the_doctor_knows_every_word_of_windows() -> None:
    page = (ROOT / "docs/check.md").read_text("utf-8")
    for entry in WINDOWS_WORDS:
        word = re.compile(rf"\b{re.escape(entry.word)}\b")
        row = next(line for line in page.splitlines() if word.search(line.partition("|")[2][:60]))
        assert all(f"`{step}`" in row for step in entry.steps)


def test_the_page_on_the_doctor_names_only_codes_that_exist() -> None:
    page = (ROOT / "docs/check.md").read_text("utf-8")
    table = page.partition("| step |")[2].partition("## Known")[0]
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))
    derived = {"spec-domain-sid-differs", "spec-domain-guid-differs", "gateway-unreachable"}
    derived |= {"dockerd-unreachable"}
    for row in table.splitlines()[2:]:
        causes = row.rpartition("| ")[2] if row.count("|") > 3 else ""
        for code in re.findall(r"`([a-z-]+)`", causes):
            assert f'"{code}"' in sources or code in derived, code
