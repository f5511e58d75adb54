"""What Windows users type, on Linux."""

from __future__ import annotations

import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

IMAGE = "kerberos-client"
RUN = 'docker run --rm --security-opt "credentialspec=file://WebApp01.json"'


def test_both_commands_verbatim(host) -> None:
    made = host.shell("New-CredentialSpec -AccountName WebApp01 -Path ./www.json")
    assert made.returncode == 0, made.stderr
    document = json.loads((host.lab.specs_directory / "www.json").read_text())
    assert document["DomainJoinConfig"]["MachineAccountName"] == "WebApp01"
    shown = host.shell(
        f'docker run --rm --security-opt "credentialspec=file://www.json" {IMAGE} klist'
    )
    assert shown.returncode == 0, shown.stderr
    assert "Default principal: WebApp01$@EXAMPLE.TEST" in shown.stdout


@pytest.mark.parametrize("user", ["", "--user 1000:1000", "--user 4321:8765"])
def test_the_domain_knows_the_container_whoever_its_user_is(host, user: str) -> None:
    line = f"{RUN} {user} --dns {host.lab.dc_address} {IMAGE}"
    shown = host.shell(f"{line} ldapwhoami -Q -H ldap://{host.lab.dc_host}")
    assert shown.stdout == "u:EXAMPLE\\WebApp01$\n", shown.stderr


def test_postgresql_takes_the_logon(host) -> None:
    connection = "host=db.example.test user=WebApp01$ dbname=demo gssencmode=require"
    shown = host.shell(
        f"{RUN} --dns {host.lab.dc_address} {IMAGE} "
        f"psql '{connection}' -Atc 'select current_user, inet_server_addr() is not null'"
    )
    assert shown.stdout == "WebApp01$|t\n", shown.stderr


def test_an_account_allowed_through_nested_groups(host) -> None:
    shown = host.shell(f"{RUN.replace('WebApp01', 'WebApp02')} {IMAGE} klist")
    assert "WebApp02$@EXAMPLE.TEST" in shown.stdout, shown.stderr


def test_a_raw_spec(host) -> None:
    text = json.dumps(json.loads((host.lab.specs_directory / "WebApp01.json").read_text()))
    shown = host.shell(
        f"docker run --rm --security-opt 'CreDENtiaLSPeC=rAw://{text}' {IMAGE} klist"
    )
    assert "WebApp01$@EXAMPLE.TEST" in shown.stdout, shown.stderr


def test_what_the_container_sees(host) -> None:
    shown = host.shell(
        f"{RUN} --user 1000:1000 {IMAGE} sh -c 'env; stat -c \"%n %a %u\" /run/credspec/*'"
    )
    lines = shown.stdout.splitlines()
    assert "KRB5CCNAME=/run/credspec/krb5cc" in lines
    assert not [line for line in lines if line.startswith("CREDSPEC")]
    assert "/run/credspec/krb5cc 600 1000" in lines
    assert "/run/credspec/krb5.conf 600 1000" in lines


def test_five_replicas_cost_one_read_and_one_ticket(host) -> None:
    host.forget_identities()
    with ThreadPoolExecutor(5) as pool:
        shown = list(pool.map(lambda _: host.shell(f"{RUN} {IMAGE} klist"), range(5)))
    assert all("WebApp01$@EXAMPLE.TEST" in s.stdout for s in shown), shown[0].stderr
    assert host.acquisitions() == 1


def test_a_container_without_a_spec_notices_nothing(host) -> None:
    shown = host.shell(f"docker run --rm {IMAGE} env")
    assert shown.returncode == 0
    assert "KRB5" not in shown.stdout
    through_shim = host.shell(f"docker run --rm --runtime credspec {IMAGE} sh -c 'env; exit 3'")
    assert through_shim.returncode == 3
    assert "KRB5" not in through_shim.stdout
    assert host.leases() == []


def test_interactive_input_and_exec(host) -> None:
    echoed = host.shell(f"echo hello | {RUN} -i {IMAGE} cat")
    assert echoed.stdout == "hello\n", echoed.stderr
    host.shell(f"{RUN.replace('--rm', '-d --name e1')} {IMAGE} sleep 60")
    inside = host.shell("docker exec e1 klist")
    assert "WebApp01$@EXAMPLE.TEST" in inside.stdout, inside.stderr
    assert host.leases() == [host.inspect("e1")["Id"]]
    host.shell("docker rm -f e1")


def test_stop_and_start_again_gets_a_fresh_lease(host) -> None:
    host.shell(f"{RUN.replace('--rm', '-d --name s1')} {IMAGE} sleep 60")
    host.shell("docker stop -t 0 s1")
    end = time.monotonic() + 60
    while host.leases() and time.monotonic() < end:
        time.sleep(0.05)
    assert host.leases() == []
    assert host.shell("docker start s1").returncode == 0
    assert "WebApp01$" in host.shell("docker exec s1 klist").stdout
    host.shell("docker rm -f s1")


def test_leases_survive_kill_9_of_the_agent(host) -> None:
    host.shell(f"{RUN.replace('--rm', '-d --name k1')} {IMAGE} sleep 600")
    container = host.inspect("k1")["Id"]
    host.stop("agent", signal.SIGKILL)
    assert "WebApp01$" in host.shell("docker exec k1 klist").stdout
    host.start("agent")
    assert host.leases() == [container]
    # The ticket in the container is good: nobody needs to be asked.
    assert host.acquisitions() == 0
    assert "WebApp01$" in host.shell("docker exec k1 klist").stdout
    host.shell("docker rm -f k1")


def test_a_container_that_goes_while_the_agent_is_down_leaves_nothing(host) -> None:
    host.shell(f"{RUN.replace('--rm', '-d --name k2')} {IMAGE} sleep 600")
    host.stop("agent", signal.SIGKILL)
    host.shell("docker rm -f k2")
    host.start("agent")
    assert host.leases() == []
    assert list(Path(host.config.journal_directory).iterdir()) == []


def test_a_replaced_ticket_reaches_the_running_container_and_no_link_is_followed(host) -> None:
    """The container replaces its cache by a link; a new lease write must not follow it."""
    host.shell(f"{RUN.replace('--rm', '-d --name l1')} {IMAGE} sleep 600")
    host.shell(
        "docker exec l1 sh -c 'rm /run/credspec/krb5cc; ln -s /etc/passwd /run/credspec/krb5cc'"
    )
    host.stop("agent")
    host.start("agent")  # a ticket that is missing is acquired at once
    end = time.monotonic() + 60
    while "WebApp01$" not in host.shell("docker exec l1 klist").stdout and time.monotonic() < end:
        time.sleep(0.1)
    assert "WebApp01$" in host.shell("docker exec l1 klist").stdout
    assert "root:x:0:0" in host.shell("docker exec l1 cat /etc/passwd").stdout
    host.shell("docker rm -f l1")


def test_a_full_directory_harms_only_its_own_container(host) -> None:
    host.shell(f"{RUN.replace('--rm', '-d --name f1')} {IMAGE} sleep 600")
    filled = host.shell("docker exec f1 dd if=/dev/zero of=/run/credspec/x bs=1M count=20")
    assert "No space left" in filled.stderr
    assert "WebApp01$" in host.shell(f"{RUN} {IMAGE} klist").stdout
    host.shell("docker rm -f f1")
