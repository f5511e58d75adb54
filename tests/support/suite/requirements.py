"""What tests need: root, a domain, a container engine; those that lack it are left out, and say so.

`pytest -m "not domain"` chooses by what is needed.
"""

from __future__ import annotations

import os

import pytest

# By the folder or the fixture that needs it.
ENGINE_FOLDERS = ("tests/e2e/",)
ENGINE_FIXTURES = {"host", "daemon", "engine"}
DOMAIN_FIXTURES = {"lab"}
ROOT_FOLDERS = ("tests/integration/", "tests/e2e/")
REASONS = {
    "engine": "needs root, for a container engine and a domain of its own",
    "domain": "needs root, for a domain of its own",
    "root": "needs root",
}


def mark(items: list[pytest.Item], *, is_root: bool | None = None) -> None:
    """Mark tests with what they need; as a plain user, skip those that need root."""
    if is_root is None:
        is_root = os.geteuid() == 0
    for item in items:
        names = set(getattr(item, "fixturenames", ()))
        if item.nodeid.startswith(ENGINE_FOLDERS) or names & ENGINE_FIXTURES:
            item.add_marker("engine")
        if names & DOMAIN_FIXTURES:
            item.add_marker("domain")
        if item.nodeid.startswith(ROOT_FOLDERS) or names & DOMAIN_FIXTURES:
            item.add_marker("root")
        needs = next((name for name in REASONS if item.get_closest_marker(name)), None)
        if needs is not None and not is_root:
            item.add_marker(pytest.mark.skip(reason=REASONS[needs]))
