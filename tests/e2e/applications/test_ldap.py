"""ldapsearch and a Python program in a container; docs/applications/ldap.md."""

from __future__ import annotations


def test_bonsai_binds_and_seals(run) -> None:
    shown = run("python3 /app/whoami_ldap.py ldap://dc1.example.test", options="--user 1000:1000")
    assert shown.stdout == "u:EXAMPLE\\WebApp01$\n", shown.stderr


def test_ldapsearch_reads_its_own_account(run) -> None:
    search = "ldapsearch -LLL -Q -Y GSSAPI -H ldap://dc1.example.test -b DC=example,DC=test"
    shown = run(f"{search} '(sAMAccountName=WebApp01$)' sAMAccountName")
    assert "sAMAccountName: WebApp01$" in shown.stdout, shown.stderr


def test_a_name_without_spn_and_no_spec_at_all_are_refused(run) -> None:
    whoami = "ldapwhoami -Q -Y GSSAPI -H ldap://"
    unknown = run(f"{whoami}db.example.test")
    assert unknown.returncode != 0
    assert "Server not found in Kerberos database" in unknown.stderr
    nobody = run(f"{whoami}dc1.example.test", None)
    assert nobody.returncode != 0
    assert "No Kerberos credentials available" in nobody.stderr
