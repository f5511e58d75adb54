"""A .NET program in a container, by libkrb5's GSSAPI; docs/applications/dotnet.md."""

from __future__ import annotations

import pytest

from support.machine.application_runtimes import RUNTIMES
from support.machine.first_process import AS_FIRST_PROCESS

ME = "WebApp01$@EXAMPLE.TEST"
SQL = "/opt/runtime/dotnet /opt/whoami/whoami.dll sql sql.example.test,1433"


@pytest.fixture(scope="module")
def dotnet() -> str:
    """The options of ``docker run`` for runtime and program, as `make install` has put them."""
    assert (RUNTIMES / "dotnet/whoami.dll").exists(), "make install builds it"
    return f"-v {RUNTIMES}/dotnetcore2/bin:/opt/runtime:ro -v {RUNTIMES}/dotnet:/opt/whoami:ro"


@pytest.mark.parametrize("user", ["0:0", "1000:1000 --read-only --tmpfs /tmp"])
def test_sqlclient_with_integrated_security(run, dotnet: str, sql_server, user: str) -> None:
    shown = run(SQL, options=f"{dotnet} --user {user}")
    assert shown.stdout == f"{ME}\n", shown.stderr
    other = run(SQL, "WebApp02", dotnet)
    assert other.stdout == "WebApp02$@EXAMPLE.TEST\n", other.stderr


def test_httpclient_with_default_credentials(run, dotnet: str, intranet: str) -> None:
    shown = run(f"/opt/runtime/dotnet /opt/whoami/whoami.dll http {intranet}", options=dotnet)
    assert shown.stdout.strip() == ME, shown.stderr


def test_a_process_logs_on_as_well(host, dotnet: str, sql_server) -> None:
    program = f"{RUNTIMES}/dotnetcore2/bin/dotnet {RUNTIMES}/dotnet/whoami.dll"
    line = f"credspec run --spec WebApp01 -- {program} sql sql.example.test,1433"
    shown = host.shell(line, under=AS_FIRST_PROCESS)
    assert shown.stdout == f"{ME}\n", shown.stderr


def test_without_a_spec_there_is_nobody(run, dotnet: str, intranet: str, sql_server) -> None:
    shown = run(SQL, None, dotnet)
    assert shown.returncode != 0
    assert "Cannot authenticate using Kerberos" in shown.stderr
    refused = run(f"/opt/runtime/dotnet /opt/whoami/whoami.dll http {intranet}", None, dotnet)
    assert refused.returncode != 0
    assert "GSSAPI operation failed" in refused.stderr
    assert "$@" not in refused.stdout
