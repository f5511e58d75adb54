"""impacket in a container, which reads ticket caches itself; docs/applications/impacket.md."""

from __future__ import annotations

from pathlib import Path

import pytest

COMMAND = "python3 /app/whoami_impacket.py"
LIST = "python3 /programs/list_share.py dc1.example.test data"
CIFS = "cifs/dc1.example.test"
PROGRAMS = f"-v {Path(__file__).parent / 'programs'}:/programs:ro"


@pytest.fixture
def impacket(mssql_python: Path) -> str:
    return f"-v {mssql_python}:/opt/packages:ro -e PYTHONPATH=/opt/packages"


@pytest.mark.parametrize("account", ["WebApp01", "WebApp02"])
def test_it_finds_the_accounts_ticket(run, impacket: str, account: str) -> None:
    shown = run(COMMAND, account, f"{impacket} --user 1000:1000")
    assert shown.stdout == f"{account}$@EXAMPLE.TEST\n", shown.stdout + shown.stderr


def test_without_a_spec_there_is_nobody(run, impacket: str) -> None:
    assert run(COMMAND, None, impacket).returncode != 0


def test_with_tickets_of_services_it_logs_on(run, impacket: str) -> None:
    options = f"--label credspec.dev/tickets=services --label credspec.dev/services={CIFS}"
    shown = run(LIST, "WebApp02", f"{options} {PROGRAMS} {impacket}")
    assert shown.returncode == 0, shown.stderr


def test_it_does_not_ask_the_broker(run, impacket: str) -> None:
    """It asks the real KDC, which takes no decoy; what another program got is in the cache."""
    options = f"--label credspec.dev/tickets=broker {PROGRAMS} {impacket}"
    alone = run(LIST, "WebApp02", options)
    assert "KRB_AP_ERR_BAD_INTEGRITY" in alone.stderr
    after = run(f"sh -c 'kvno -q {CIFS} && {LIST}'", "WebApp02", options)
    assert after.returncode == 0, after.stderr
