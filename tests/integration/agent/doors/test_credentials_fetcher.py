"""credentials-fetcher's calls, by a client of its published interface, against the real domain."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from credspec.lab.domain import Lab
from support.agent.agent_process import as_user, open_to_users
from support.credentials_fetcher import peer_client
from support.credentials_fetcher.fetcher_agent import FetcherAgent
from support.credentials_fetcher.peer_client import CALLS, PeerClient


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


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_the_service_says_what_it_is(agent: FetcherAgent, version: str) -> None:
    name = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
    listing = b"\x3a\x01*"  # ServerReflectionRequest, field 7, list_services
    [answer] = agent.peer.channel.stream_stream(name)(iter([listing]), timeout=60)
    assert b"credentialsfetcher.CredentialsFetcherService" in answer


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
    assert code is grpc.StatusCode.PERMISSION_DENIED
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


@pytest.mark.parametrize(
    ("documents", "text"),
    [
        ([], "specs-number"),
        ([""], ""),
        (["not JSON"], "spec-not-json"),
        (["{}"], ""),
        (['{"CmsPlugins": ["ActiveDirectory"]}'] * 101, "specs-number"),
        (["x" * 70_000], "spec-too-large"),
    ],
    ids=["none", "empty", "no-json", "no-spec", "101", "70 kB"],
)
def test_specs_that_are_none(agent: FetcherAgent, documents: list[str], text: str) -> None:
    code, found = agent.peer.refusal("AddKerberosLease", credspec_contents=documents)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert found.startswith("Error: credential spec provided is not properly formatted: ")
    assert text in found
    assert agent.nothing_is_left()


@pytest.mark.parametrize("name", ["../../etc", "a/b", "..", ".", "web\x00app", "a" * 65])
def test_an_account_that_is_no_name_is_no_path(agent: FetcherAgent, name: str) -> None:
    document = json.dumps(json.loads(agent.spec)).replace("WebApp01", json.dumps(name)[1:-1])
    code, found = agent.peer.refusal("AddKerberosLease", credspec_contents=[document])
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert found.startswith("Error: credential spec provided is not properly formatted: ")
    assert agent.nothing_is_left()


@pytest.mark.parametrize(
    "lease",
    ["", "..", ".", "/", "../journal", "a/b", "a" * 65, "\x00", "-rf", "a\nb", "\u202e", "é" * 20],
)
def test_lease_ids_that_are_none(agent: FetcherAgent, lease: str) -> None:
    code, found = agent.peer.refusal("DeleteKerberosLease", lease_id=lease)
    assert (code, found.partition(": ")[0]) == (grpc.StatusCode.INVALID_ARGUMENT, "Error")
    assert found.startswith("Error: lease_id is not valid: ")


def raw_refusal(agent: FetcherAgent, call: str, message: bytes) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        agent.peer.raw(call)(message, timeout=30)
    return caught.value.code(), caught.value.details() or ""


@pytest.mark.parametrize("call", sorted(CALLS))
def test_a_message_that_is_no_text_in_utf_8(agent: FetcherAgent, call: str) -> None:
    code, found = raw_refusal(agent, call, b"\x0a\x04\xff\xfe\xfd\xfc")
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "[message-invalid]" in found
    assert agent.nothing_is_left()


@pytest.mark.parametrize("message", [b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x0b" * 1000])
def test_bytes_that_are_no_message(agent: FetcherAgent, message: bytes) -> None:
    code, _ = raw_refusal(agent, "AddKerberosLease", message)
    assert code is grpc.StatusCode.INVALID_ARGUMENT


def test_a_message_too_long(agent: FetcherAgent) -> None:
    code, _ = agent.peer.refusal("AddKerberosLease", credspec_contents=["x" * (5 << 20)])
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert agent.peer.call("HealthCheck").status == "OK"


def test_a_call_that_is_none(agent: FetcherAgent) -> None:
    assert raw_refusal(agent, "Nothing", b"")[0] is grpc.StatusCode.UNIMPLEMENTED


def test_bytes_that_are_not_http_2(agent: FetcherAgent) -> None:
    for data in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0" * 100_000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff",
    ):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(str(agent.socket))
            with suppress(OSError):
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass
    assert agent.peer.call("HealthCheck").status == "OK"


def test_callers_that_give_up_or_go_harm_nothing(agent: FetcherAgent) -> None:
    specs = [agent.document(f"WebApp0{number}") for number in (1, 2, 3)]
    patience = [0.001, 0.01, 0.1, 0.11, 0.12, 0.13, 0.15, 0.2]

    def impatient(seconds: float) -> str | None:
        try:
            made = agent.peer.call("AddKerberosLease", seconds=seconds, credspec_contents=specs)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            return None
        return made.lease_id

    with ThreadPoolExecutor(8) as pool:
        made = [lease for lease in pool.map(impatient, patience * 6) if lease is not None]
    going = [PeerClient(agent.socket) for _ in range(8)]
    for client in going:
        asked = client.raw("AddKerberosLease").future(b"")
        client.close()
        asked.cancel()
    for lease in made:
        agent.peer.call("DeleteKerberosLease", lease_id=lease)
    end = time.monotonic() + 60
    while not agent.nothing_is_left() and time.monotonic() < end:
        time.sleep(0.05)
    # A client that gives up when its transport has the whole answer already resets nothing: HTTP/2
    # does not tell it from one that took the answer. Its lease is whole, and ends like any other.
    unclaimed = [path.name for path in agent.tree.iterdir()]
    names = {f"WebApp0{number}" for number in (1, 2, 3)}
    for lease in unclaimed:
        found = {path.name for path in (agent.tree / lease).iterdir()}
        assert found == names | {f"{lease}_metadata.json"}
        agent.peer.call("DeleteKerberosLease", lease_id=lease)
    assert agent.nothing_is_left()
    # Of callers that have gone before the agent looks at their calls, nothing is ever left.
    assert agent.process is not None
    agent.process.send_signal(signal.SIGSTOP)
    try:
        assert [impatient(0.1) for _ in range(8)] == [None] * 8
    finally:
        agent.process.send_signal(signal.SIGCONT)
    assert agent.peer.call("HealthCheck").status == "OK"
    end = time.monotonic() + 60
    while not agent.nothing_is_left():
        assert time.monotonic() < end
        time.sleep(0.05)
    kept = agent.peer.call("AddKerberosLease", credspec_contents=specs)
    agent.peer.call("DeleteKerberosLease", lease_id=kept.lease_id)


def test_users_of_this_host_may_not_call(agent: FetcherAgent) -> None:
    assert agent.socket.stat().st_mode & 0o077 == 0
    agent.directory.chmod(0o711)
    agent.socket.chmod(0o666)
    program = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.settimeout(60);"
        f"s.connect({str(agent.socket)!r}); print(s.recv(100))"
    )
    # Connected it is, but the connection is closed before anything of it is read.
    open_to_users(agent.directory.parent)
    shown = subprocess.run(
        as_user("nobody", ["/usr/bin/python3", "-c", program]),
        capture_output=True,
        text=True,
        check=False,
    )
    agent.socket.chmod(0o600)
    assert shown.stdout.strip() == "b''" or "reset" in shown.stderr.lower(), shown.stderr
    assert "caller-refused" in agent.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["ended", "killed"])
def test_an_end_amid_calls(agent: FetcherAgent, number: signal.Signals) -> None:
    specs = [agent.document(f"WebApp0{number}") for number in (1, 2, 3)]

    def caller(_: int) -> None:
        client = PeerClient(agent.socket)
        with suppress(grpc.RpcError):
            for _ in range(100):
                made = client.call("AddKerberosLease", seconds=20, credspec_contents=specs)
                if int(made.lease_id[0], 16) % 2:
                    client.call("DeleteKerberosLease", seconds=20, lease_id=made.lease_id)
        client.close()

    with ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(caller, each) for each in range(6)]
        # More than are under way at a time: some are whole.
        end = time.monotonic() + 60
        while len(list(agent.tree.iterdir())) <= len(calls) + 2 and time.monotonic() < end:
            time.sleep(0.01)
        agent.end(number)
        for call in calls:
            call.result()
    agent.start()
    # Whole leases are there, or nothing of them.
    leases = [path.name for path in agent.tree.iterdir()]
    assert leases
    names = {f"WebApp0{number}" for number in (1, 2, 3)}
    for lease in leases:
        found = {path.name for path in (agent.tree / lease).iterdir()}
        assert found == names | {f"{lease}_metadata.json"}
        assert all((agent.tree / lease / name / "krb5cc").stat().st_size for name in names)
    expected = sorted(f"{lease}/{name}" for lease in leases for name in names)
    assert sorted(agent.lease_containers()) == expected
    for lease in leases:
        agent.peer.call("DeleteKerberosLease", lease_id=lease)
    assert agent.nothing_is_left()


CALL = """
import sys
from pathlib import Path
import grpc
from support.credentials_fetcher.peer_client import PeerClient
client = PeerClient(Path(sys.argv[1]))
try:
    print(client.call(sys.argv[2], **eval(sys.argv[3])))
except grpc.RpcError as error:
    print(error.code(), error.details())
"""


def test_users_who_may_call_end_their_own_leases_alone(lab: Lab) -> None:
    # Not below pytest's own directory: every run of it closes that to other users.
    directory = Path(tempfile.mkdtemp(prefix="credspec-cf-", dir="/var/tmp"))
    directory.chmod(0o755)
    agent = FetcherAgent(lab, directory, extra='users = ["nobody"]\nowner = "65534:65534"\n')
    tests = Path(peer_client.__file__).parents[2]

    def as_nobody(name: str, **fields: object) -> str:
        command = [sys.executable, "-c", CALL, str(agent.socket), name, repr(fields)]
        return subprocess.run(
            as_user("nobody", command),
            env={**os.environ, "PYTHONPATH": f"{tests}:{os.environ.get('PYTHONPATH', '')}"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    try:
        agent.start()
        ours = agent.peer.call("AddKerberosLease", credspec_contents=[agent.spec]).lease_id
        made = as_nobody("AddKerberosLease", credspec_contents=[agent.spec])
        theirs = made.partition('lease_id: "')[2][:20]
        cache = agent.tree / theirs / "WebApp01/krb5cc"
        assert (cache.stat().st_uid, cache.stat().st_gid) == (65534, 65534)
        assert "lease-not-yours" in as_nobody("DeleteKerberosLease", lease_id=ours)
        assert (agent.tree / ours).exists()
        assert theirs in as_nobody("DeleteKerberosLease", lease_id=theirs)
        assert not (agent.tree / theirs).exists()
        uids = [json.loads(line)["uid"] for line in agent.audit_log.read_text().splitlines()]
        assert uids == [0, 65534, 65534]
    finally:
        agent.close()
        shutil.rmtree(directory)
