"""Write every generated page, or with ``--check`` only say which are out of date."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from docs_reference.api_page import api_page
from docs_reference.chart_page import CHART, chart_page
from docs_reference.cli_page import cli_page
from docs_reference.configuration_page import configuration_page
from docs_reference.errors_page import errors_page
from docs_reference.lint_page import lint_page
from docs_reference.man_pages import man_pages

DOCS = Path(__file__).parents[2] / "docs"
MAN = DOCS / "man"
PAGES: Mapping[str, Callable[[], str]] = {
    "api.md": api_page,
    "cli.md": cli_page,
    "configuration.md": configuration_page,
    "errors.md": errors_page,
    "lint.md": lint_page,
}


def main() -> int:
    """Write the pages; return how many are out of date with ``--check``."""
    texts = {DOCS / name: page() for name, page in PAGES.items()}
    texts[CHART / "README.md"] = chart_page()
    texts |= {MAN / name: text for name, text in man_pages().items()}
    gone = {*MAN.glob("*.[0-9]")} - texts.keys()
    stale = sorted(
        gone | {path for path, text in texts.items() if not path.exists() or _read(path) != text}
    )
    for path in stale:
        if "--check" not in sys.argv[1:]:
            path.unlink() if path in gone else path.write_text(texts[path], "utf-8")
        sys.stdout.write(f"{path.relative_to(DOCS.parent)}\n")
    return len(stale) if "--check" in sys.argv[1:] else 0


def _read(path: Path) -> str:
    return path.read_text("utf-8")


if __name__ == "__main__":
    sys.exit(main())
