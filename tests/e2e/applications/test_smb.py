"""smbclient in a container, at a share of the domain controller; docs/applications/smb.md."""

from __future__ import annotations

OPTIONS = "--use-kerberos=required"
SHARE = "//dc1.example.test/data"


def test_a_file_that_the_container_writes_belongs_to_its_account(run) -> None:
    put = run(f"smbclient {SHARE} {OPTIONS} -c 'put /etc/passwd users; get users -'", "WebApp02")
    assert put.returncode == 0, put.stdout + put.stderr
    assert "root:x:0:0" in put.stdout
    acl = run(f"smbcacls {SHARE} users {OPTIONS}", "WebApp02")
    assert "OWNER:EXAMPLE\\WebApp02$" in acl.stdout.splitlines(), acl.stderr


def test_without_a_spec_the_session_is_refused(run) -> None:
    shown = run(f"smbclient {SHARE} {OPTIONS} -c ls", None)
    assert shown.returncode == 1
    assert "session setup failed: NT_STATUS_INVALID_PARAMETER" in shown.stdout
    assert "Could not find a suitable mechtype" in shown.stderr


def test_an_address_is_no_name_that_the_domain_knows(host, run) -> None:
    shown = run(f"smbclient //{host.lab.dc_address}/data {OPTIONS} -c ls", "WebApp02")
    assert shown.returncode == 1
    assert "session setup failed" in shown.stdout + shown.stderr
