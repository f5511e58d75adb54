"""impacket in a container, which reads ticket caches itself; docs/applications/impacket.md."""

from __future__ import annotations

from pathlib import Path

import pytest

COMMAND = "python3 /app/whoami_impacket.py"


@pytest.fixture
def impacket(mssql_python: Path) -> str:
    return f"-v {mssql_python}:/opt/packages:ro -e PYTHONPATH=/opt/packages"


@pytest.mark.parametrize("account", ["WebApp01", "WebApp02"])
def test_it_finds_the_accounts_ticket(run, impacket: str, account: str) -> None:
    shown = run(COMMAND, account, f"{impacket} --user 1000:1000")
    assert shown.stdout == f"{account}$@EXAMPLE.TEST\n", shown.stdout + shown.stderr


def test_without_a_spec_there_is_nobody(run, impacket: str) -> None:
    assert run(COMMAND, None, impacket).returncode != 0
