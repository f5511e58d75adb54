"""The documentation site: links that leave docs/, its references, and what a browser loads."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

import credspec
import site_hook

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("page", "link", "shown"),
    [
        ("runtimes/docker.md", "../../README.md", "../index.md"),
        ("events.md", "../packaging/grafana/x.json", "repository/packaging/grafana/x.json"),
        ("changelog.md", "docs/policy.md#revoke", "policy.md#revoke"),
        ("runtimes/docker.md", "../applications/smb.md", "../applications/smb.md"),
        ("check.md", "https://example.com/x.md", "https://example.com/x.md"),
        ("check.md", "#steps", "#steps"),
    ],
)
def test_links_point_to_what_the_site_has(page: str, link: str, shown: str) -> None:
    file = SimpleNamespace(file=SimpleNamespace(src_uri=page))
    assert site_hook.on_page_markdown(f"see [it]({link}).", page=file) == f"see [it]({shown})."


def test_every_public_name_is_in_the_library_reference() -> None:
    page = (ROOT / "docs/library-reference.md").read_text("utf-8")
    listed = re.findall(r"^::: (credspec\.\S+)\.(\w+)$", page, flags=re.MULTILINE)
    assert {name for _, name in listed} == {*credspec.__all__} - {"__version__"}
    for module, name in listed:
        assert getattr(import_module(module), name) is getattr(credspec, name)


def test_a_browser_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for path in tmp_path.rglob("*.html"):
        text = path.read_text("utf-8")
        loaded = re.findall(r"<(?:script|img|link|iframe)\b[^>]*(?:src|href)=\"?([^\" >]+)", text)
        assert [url for url in loaded if re.match(r"(?:https?:)?//", url)] == [], path.name
        # The theme fetches a program for these from elsewhere.
        assert 'class="mermaid"' not in text, path.name
