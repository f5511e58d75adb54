"""psycopg in a container, logged on to the lab's PostgreSQL; docs/applications/postgresql.md."""

from __future__ import annotations

ME = "python3 /app/whoami_postgresql.py db.example.test 'WebApp01$'"


def test_psycopg_logs_on_and_encrypts(run) -> None:
    shown = run(ME, options="--user 1000:1000")
    assert shown.stdout == "WebApp01$\n('WebApp01$@EXAMPLE.TEST', True)\n", shown.stderr


def test_without_a_spec_there_is_no_encryption_and_no_logon(run) -> None:
    required = run(ME, None)
    assert required.returncode == 1
    assert "GSSAPI encryption required but " in required.stderr
    preferred = run(f"{ME} prefer", None)
    assert preferred.returncode == 1
    assert "No Kerberos credentials available" in preferred.stderr


def test_a_name_without_spn_and_another_account_s_role_are_refused(run) -> None:
    unknown = run(ME.replace("db.", "dc1."))
    assert "Server not found in Kerberos database" in unknown.stderr
    other = run(ME.replace("WebApp01$", "WebApp02$"))
    assert 'FATAL:  GSSAPI authentication failed for user "WebApp02$"' in other.stderr
