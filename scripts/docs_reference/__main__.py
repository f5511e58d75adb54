"""Write every generated page, or with ``--check`` only say which are out of date."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from docs_reference.api_page import api_page
from docs_reference.cli_page import cli_page
from docs_reference.configuration_page import configuration_page
from docs_reference.errors_page import errors_page

DOCS = Path(__file__).parents[2] / "docs"
PAGES: Mapping[str, Callable[[], str]] = {
    "api.md": api_page,
    "cli.md": cli_page,
    "configuration.md": configuration_page,
    "errors.md": errors_page,
}


def main() -> int:
    """Write the pages; return how many are out of date with ``--check``."""
    stale = 0
    for name, page in PAGES.items():
        path, text = DOCS / name, page()
        if path.exists() and path.read_text("utf-8") == text:
            continue
        stale += 1
        if "--check" not in sys.argv[1:]:
            path.write_text(text, "utf-8")
        sys.stdout.write(f"docs/{name}\n")
    return stale if "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
