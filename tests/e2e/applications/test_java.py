"""Java in a container, whose Kerberos is its own; docs/applications/java.md."""

from __future__ import annotations

from pathlib import Path

# An image's own, in whose place Java is given ours.
IMAGES_OWN = "-v /dev/null:/etc/krb5.conf:ro"
CONFIGURED = f"{IMAGES_OWN} -e JAVA_TOOL_OPTIONS=-Djava.security.krb5.conf=/run/credspec/krb5.conf"
HTTP = "java -Djavax.security.auth.useSubjectCredsOnly=false /app/WhoamiHttp.java"
JDBC = (
    "java -Djava.security.auth.login.config=/app/jaas.conf -cp /usr/share/java/postgresql.jar "
    "/app/WhoamiPostgresql.java db.example.test 'WebApp01$'"
)
MSSQL = "java -cp /opt/packages/java/mssql-jdbc.jar /app/WhoamiSqlServer.java sql.example.test"


def test_http_negotiate(run, java: str, intranet: str) -> None:
    shown = run(f"{HTTP} {intranet}", options=f"{java} {CONFIGURED} --user 1000:1000")
    assert shown.stdout.split() == ["200", "WebApp01$@EXAMPLE.TEST"], shown.stderr


def test_jdbc_to_postgresql(run, java: str) -> None:
    shown = run(JDBC, options=f"{java} {CONFIGURED}")
    assert shown.stdout == "WebApp01$\n", shown.stderr


def test_mssql_jdbc(run, java: str, mssql_python: Path, sql_server) -> None:
    mounts = f"{java} -v {mssql_python}:/opt/packages:ro"
    shown = run(MSSQL, options=f"{mounts} --user 1000:1000")
    assert shown.stdout == "WebApp01$@EXAMPLE.TEST\n", shown.stderr


def test_without_a_krb5_conf_in_the_image_it_needs_no_option(run, java: str, intranet: str) -> None:
    shown = run(f"{HTTP} {intranet}", options=f"{java} --read-only --user 1000:1000")
    assert shown.stdout.split() == ["200", "WebApp01$@EXAMPLE.TEST"], shown.stderr


def test_with_the_images_own_krb5_conf_it_finds_no_realm(run, java: str, intranet: str) -> None:
    http = run(f"{HTTP} {intranet}", options=f"{java} {IMAGES_OWN}")
    assert http.stdout == "401\n"
    jdbc = run(JDBC, options=f"{java} {IMAGES_OWN}")
    assert jdbc.returncode == 1
    assert "An error occurred while setting up the GSS Encoded connection" in jdbc.stderr


def test_without_a_spec_there_is_nobody(run, java: str, intranet: str) -> None:
    shown = run(f"{HTTP} {intranet}", None, java)
    assert shown.stdout == "401\n"
