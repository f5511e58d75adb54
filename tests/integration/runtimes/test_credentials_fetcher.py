"""credentials-fetcher's calls, by a client of its published interface, against the real domain."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from fetcher_agent import FetcherAgent

from credspec.lab.domain import Lab


@pytest.fixture(scope="module")
def agent(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FetcherAgent]:
    running = FetcherAgent(lab, tmp_path_factory.mktemp("cf"))
    try:
        running.start()
        yield running
    finally:
        running.close()


def principal(path: str | Path) -> str:
    listed = subprocess.run(["klist", str(path)], capture_output=True, text=True, check=True)
    return listed.stdout.partition("Default principal: ")[2].partition("\n")[0]


def test_a_lease_with_the_hosts_own_identity(agent: FetcherAgent) -> None:
    specs = [agent.spec, agent.document("WebApp02")]
    made = agent.peer.call("AddKerberosLease", credspec_contents=specs)
    assert len(bytes.fromhex(made.lease_id)) == 10
    directories = [f"{agent.tree}/{made.lease_id}/WebApp0{number}" for number in (1, 2)]
    assert list(made.created_kerberos_file_paths) == directories
    assert [principal(f"{d}/krb5cc") for d in directories] == [
        "WebApp01$@EXAMPLE.TEST",
        "WebApp02$@EXAMPLE.TEST",
    ]
    cache = Path(directories[0], "krb5cc").stat()
    assert (cache.st_uid, cache.st_gid, cache.st_mode & 0o7777) == (0, 0, 0o600)
    assert Path(directories[0]).stat().st_mode & 0o7777 == 0o755
    assert agent.metadata(made.lease_id)[1] == {
        "krb_file_path": f"{directories[1]}/krb5cc",
        "service_account_name": "WebApp02",
        "domain_name": "example.test",
        "domainless_user": "",
        "credspec_info": "",
    }
    gone = agent.peer.call("DeleteKerberosLease", lease_id=made.lease_id)
    assert gone.lease_id == made.lease_id
    assert list(gone.deleted_kerberos_file_paths) == [f"{d}/krb5cc" for d in directories]
    assert agent.nothing_is_left()
    again = agent.peer.call("DeleteKerberosLease", lease_id=made.lease_id)
    assert list(again.deleted_kerberos_file_paths) == []


def test_health(agent: FetcherAgent) -> None:
    assert agent.peer.call("HealthCheck", service="any").status == "OK"


def test_who_asked_for_what_is_in_the_audit_log(agent: FetcherAgent) -> None:
    made = agent.peer.call("AddKerberosLease", credspec_contents=[agent.spec])
    agent.peer.call("DeleteKerberosLease", lease_id=made.lease_id)
    lines = [json.loads(line) for line in agent.audit_log.read_text().splitlines()[-2:]]
    assert [line["decision"] for line in lines] == ["granted", "released"]
    assert all(line["uid"] == 0 and line["pid"] > 0 for line in lines)
    assert lines[0]["container"] == f"{made.lease_id}/WebApp01"
    assert lines[0]["spec"].startswith("raw:sha256:")


def test_one_account_wanted_twice_is_one_ticket(agent: FetcherAgent) -> None:
    specs = [agent.spec, agent.spec]
    made = agent.peer.call("AddKerberosLease", credspec_contents=specs)
    assert len(made.created_kerberos_file_paths) == 1
    agent.peer.call("DeleteKerberosLease", lease_id=made.lease_id)
    assert agent.nothing_is_left()


def test_all_tickets_of_a_lease_or_none(agent: FetcherAgent) -> None:
    specs = [agent.spec, agent.document("Forbidden01"), agent.document("Nobody01")]
    code, text = agent.peer.refusal("AddKerberosLease", credspec_contents=specs)
    assert code is grpc.StatusCode.INTERNAL
    assert text.startswith("ERROR: Cannot get gMSA krb ticket: ")
    assert "[password-not-permitted]" in text
    assert "[account-not-found]" in text
    assert agent.nothing_is_left()


def test_many_callers_at_once(agent: FetcherAgent) -> None:
    def life(number: int) -> str:
        document = agent.document(f"WebApp0{number % 3 + 1}")
        made = agent.peer.call("AddKerberosLease", credspec_contents=[document])
        assert principal(f"{made.created_kerberos_file_paths[0]}/krb5cc").startswith("WebApp0")
        agent.peer.call("DeleteKerberosLease", lease_id=made.lease_id)
        return made.lease_id

    with ThreadPoolExecutor(16) as pool:
        leases = list(pool.map(life, range(60)))
    assert len(set(leases)) == 60
    assert agent.nothing_is_left()


def test_a_restart_takes_the_leases_over(agent: FetcherAgent) -> None:
    made = agent.peer.call("AddKerberosLease", credspec_contents=[agent.spec])
    cache = Path(made.created_kerberos_file_paths[0], "krb5cc")
    before = cache.read_bytes()
    (agent.tree / "0123456789abcdef0123").mkdir()
    agent.end()
    agent.start()
    assert cache.read_bytes() == before
    assert agent.lease_containers() == [f"{made.lease_id}/WebApp01"]
    assert [path.name for path in agent.tree.iterdir()] == [made.lease_id]
    gone = agent.peer.call("DeleteKerberosLease", lease_id=made.lease_id)
    assert list(gone.deleted_kerberos_file_paths) == [str(cache)]
    assert agent.nothing_is_left()
