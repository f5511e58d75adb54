"""SQL Server's clients in a container; docs/applications/sql-server.md.

No SQL Server can be installed where these tests run. The clients are the real ones, Microsoft's
and FreeTDS; what they log on to is tests/support/servers/tds_endpoint.py, which speaks
enough of TDS for a logon and really checks the Kerberos ticket with the keytab of
``MSSQLSvc/sql.<domain>:1433``.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"
ME = "WebApp01$@EXAMPLE.TEST"
MICROSOFT = "python3 /app/whoami_sql.py"
BSQLDB = "sh -c 'echo \"select suser_sname()\" | bsqldb -q -S {}'"
SPN = "MSSQLSvc/sql.example.test:1433"


@pytest.fixture
def microsoft(run, mssql_python: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    options = f"-v {mssql_python}:/opt/mssql:ro -e PYTHONPATH=/opt/mssql --user 1000:1000"
    return lambda host, account="WebApp01": run(f"{MICROSOFT} {host}", account, options)


def test_microsoft_s_driver_logs_on(microsoft, sql_server) -> None:
    shown = microsoft("sql.example.test")
    assert shown.stdout == f"{ME}\n", shown.stderr
    other = microsoft("sql.example.test", "WebApp02")
    assert other.stdout == "WebApp02$@EXAMPLE.TEST\n", other.stderr


def test_microsoft_s_driver_says_what_is_missing(microsoft, sql_server) -> None:
    nobody = microsoft("sql.example.test", None)
    assert nobody.returncode == 1
    assert "SSPI Provider: No credentials were supplied" in nobody.stderr
    unknown = microsoft("dc1.example.test")
    assert unknown.returncode == 1
    assert "SSPI Provider: Server not found in Kerberos database" in unknown.stderr


def test_freetds_logs_on(run, sql_server) -> None:
    bsqldb = run(BSQLDB.format("sql.example.test"))
    assert bsqldb.stdout.strip() == ME, bsqldb.stderr
    lines = "select suser_sname()\\ngo\\n"
    tsql = run(f"sh -c 'printf \"{lines}\" | tsql -S sql.example.test -o q'")
    assert tsql.stdout.split() == ["name", ME], tsql.stderr


@pytest.mark.parametrize(("server", "account"), [("sql", None), ("dc1", "WebApp01")])
def test_freetds_does_not_say_why(run, sql_server, server: str, account: str | None) -> None:
    before = sql_server().count("accepted")
    shown = run(BSQLDB.format(f"{server}.example.test"), account)
    assert shown.returncode == 1
    assert f"Adaptive Server connection failed ({server}.example.test)" in shown.stderr
    assert sql_server().count("accepted") == before


@pytest.mark.parametrize(
    ("spn", "kind", "answer"),
    [
        (SPN, "sound", "logged on"),
        (SPN, "forged", "18452 Login failed. The login is from an untrusted domain"),
        # A good ticket, but for another service.
        (SPN.replace("sql.", "db."), "sound", "18452 Login failed. The login is from an untrusted"),
        (SPN, "none", "18456 Login failed for user ''."),
    ],
)
def test_the_endpoint_checks_the_ticket(run, sql_server, spn: str, kind: str, answer: str) -> None:
    options = f"-v {PROGRAMS}:/programs:ro"
    shown = run(f"python3 /programs/tds_login.py sql.example.test {spn} {kind}", options=options)
    assert shown.stdout.startswith(answer), shown.stdout + shown.stderr
