"""curl in a container, at an Apache that asks for Negotiate; docs/applications/http.md."""

from __future__ import annotations

CURL = "curl -sS --fail --negotiate -u :"


def test_apache_names_the_account(run, intranet: str) -> None:
    shown = run(f"{CURL} {intranet}", options="--user 1000:1000")
    assert shown.stdout.strip() == "WebApp01$@EXAMPLE.TEST", shown.stderr
    other = run(f"{CURL} {intranet}", "WebApp02")
    assert other.stdout.strip() == "WebApp02$@EXAMPLE.TEST", other.stderr


def test_no_spec_and_a_name_without_spn_are_refused(run, intranet: str, sql_server) -> None:
    nobody = run(f"{CURL} {intranet}", None)
    # The same Apache by another name.
    unknown = run(f"{CURL} -v {intranet.replace('intranet', 'sql')}")
    for shown in (nobody, unknown):
        assert shown.returncode == 22, shown.stdout
        assert "The requested URL returned error: 401" in shown.stderr
        assert "$@" not in shown.stdout
    assert "Server not found in Kerberos database" in unknown.stderr
