"""Go in a container, whose Kerberos is its own; docs/applications/go.md."""

from __future__ import annotations

import pytest

from support.machine.application_runtimes import RUNTIMES
from support.machine.first_process import AS_FIRST_PROCESS

ME = "WebApp01$@EXAMPLE.TEST"
# The endpoint does no TLS.
PLAIN = "-e 'SQL_OPTIONS=&encrypt=disable'"


@pytest.fixture(scope="module")
def go() -> str:
    """The options of ``docker run`` for the program, as `make install` has built it."""
    program = RUNTIMES / "go/whoami"
    assert program.exists(), "make install builds it"
    return f"-v {program.parent}:/opt/go:ro {PLAIN}"


@pytest.mark.parametrize("user", ["0:0", "1000:1000 --read-only"])
def test_sql_server_needs_no_parameters(run, go: str, sql_server, user: str) -> None:
    shown = run("/opt/go/whoami sql sql.example.test:1433", options=f"{go} --user {user}")
    assert shown.stdout == f"{ME}\n", shown.stderr
    other = run("/opt/go/whoami sql sql.example.test:1433", "WebApp02", go)
    assert other.stdout == "WebApp02$@EXAMPLE.TEST\n", other.stderr


def test_http_negotiate(run, go: str, intranet: str) -> None:
    shown = run(f"/opt/go/whoami http {intranet}", options=go)
    assert shown.stdout.strip() == ME, shown.stderr


def test_without_environment_the_configuration_is_in_etc(run, go: str, intranet: str) -> None:
    shown = run(f"env -i /opt/go/whoami http {intranet}", options=go)
    assert shown.stdout.strip() == ME, shown.stderr


def test_a_process_logs_on_as_well(host, go: str, sql_server) -> None:
    program = f"{RUNTIMES}/go/whoami sql sql.example.test:1433"
    variables = "env -u KRB5_CONFIG SQL_OPTIONS='&encrypt=disable'"
    line = f"{variables} credspec run --spec WebApp01 -- {program}"
    shown = host.shell(line, under=AS_FIRST_PROCESS)
    assert shown.stdout == f"{ME}\n", shown.stderr


def test_without_a_spec_there_is_nobody(run, go: str, sql_server) -> None:
    shown = run("/opt/go/whoami sql sql.example.test:1433", None, go)
    assert shown.returncode == 1
    assert "Unable to load krb5 config" in shown.stderr
