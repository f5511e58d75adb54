"""Clients of engines that no package of Debian has, as `make install` builds or downloads them.

nerdctl, `nomad_request` (see `clients/nomad_request`), and the jars of Testcontainers for Java.
"""

from __future__ import annotations

from pathlib import Path

import pytest

SOURCES = Path(__file__).parent / "clients"
PROGRAMS = Path(__file__).parents[3] / ".venv/clients"


def client_program(name: str) -> Path:
    """Return where a program is; the test is left out if this machine's Go could not build it."""
    assert (PROGRAMS / ".done").exists(), "make install puts it there"
    if not (PROGRAMS / name).exists():
        pytest.skip(f"{name} needs Go 1.24 to be built")
    return PROGRAMS / name
