"""credentials-fetcher's calls with a user's password, at the real domain.

The calls with ARNs ask a local server that speaks the APIs of S3 and Secrets Manager.
"""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from credspec.lab.domain import Lab
from support.credentials_fetcher.fetcher_agent import FetcherAgent
from support.servers.aws_endpoints import ACCESS_KEY, SESSION_TOKEN, AwsEndpoints

PASSWORD = "Correct-Horse.7 'battery\""
SECRET = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:reader-AbCdEf"
ACCESS = {
    "access_key_id": ACCESS_KEY,
    "secret_access_key": "a-secret-access-key",
    "session_token": SESSION_TOKEN,
    "region": "eu-west-1",
}
FINAL = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
}


@pytest.fixture(scope="module")
def users(lab: Lab) -> Iterator[None]:
    """Two users who may read WebApp02's password, and one who may not."""
    for name in ("reader1", "reader2", "stranger"):
        lab.samba_tool("user", "create", name, PASSWORD)
    lab.samba_tool("group", "addmembers", "LabHosts", "reader1,reader2")
    yield
    for name in ("reader1", "reader2", "stranger"):
        lab.samba_tool("user", "delete", name)


@pytest.fixture(scope="module")
def aws() -> Iterator[AwsEndpoints]:
    found = AwsEndpoints()
    yield found
    found.close()


@pytest.fixture(scope="module")
def agent(
    lab: Lab, users: None, aws: AwsEndpoints, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FetcherAgent]:
    running = FetcherAgent(lab, tmp_path_factory.mktemp("cf"))
    try:
        running.start(AWS_ENDPOINT_URL=aws.url, AWS_CONFIG_FILE=str(running.directory / "none"))
        yield running
    finally:
        running.close()


def add(agent: FetcherAgent, account: str = "WebApp02", **fields: str) -> tuple[str, Path]:
    given = {"username": "reader1", "password": PASSWORD, "domain": "example.test"} | fields
    made = agent.peer.call(
        "AddNonDomainJoinedKerberosLease", credspec_contents=[agent.document(account)], **given
    )
    return made.lease_id, Path(made.created_kerberos_file_paths[0], "krb5cc")


def renew(agent: FetcherAgent, name: str, password: str = PASSWORD) -> list[str]:
    answer = agent.peer.call(
        "RenewNonDomainJoinedKerberosLease",
        username=name,
        password=password,
        domain="example.test",
    )
    return list(answer.renewed_kerberos_file_paths)


def end(agent: FetcherAgent, *leases: str) -> None:
    for lease in leases:
        agent.peer.call("DeleteKerberosLease", lease_id=lease)
    assert agent.nothing_is_left()


def principal(path: Path) -> str:
    listed = subprocess.run(["klist", str(path)], capture_output=True, text=True, check=True)
    return listed.stdout.partition("Default principal: ")[2].partition("\n")[0]


def test_a_lease_with_a_users_password(agent: FetcherAgent) -> None:
    lease, cache = add(agent)
    assert principal(cache) == "WebApp02$@EXAMPLE.TEST"
    [entry] = agent.metadata(lease)
    assert (entry["domainless_user"], entry["krb_file_path"]) == ("reader1", str(cache))
    line = json.loads(agent.audit_log.read_text().splitlines()[-1])
    assert line["decision"] == "granted"
    assert line["host_account"].startswith("example.test\\reader1#")
    before = cache.read_bytes()
    assert renew(agent, "reader1") == [str(cache)]
    assert cache.read_bytes() != before
    end(agent, lease)


def test_each_user_has_what_it_may_read(agent: FetcherAgent) -> None:
    # The host itself may read WebApp01's password; who logs on as a user gets the user's share.
    host = agent.peer.call("AddKerberosLease", credspec_contents=[agent.document("WebApp02")])
    with pytest.raises(grpc.RpcError, match="password-not-permitted") as caught:
        add(agent, "WebApp01")
    assert str(caught.value.details()).startswith("ERROR: Cannot get gMSA krb ticket: ")
    with pytest.raises(grpc.RpcError, match="password-not-permitted") as caught:
        add(agent, username="stranger")
    # It is asked once, and blames who asked.
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    text = str(caught.value.details())
    assert "stranger@EXAMPLE.TEST may not read the managed password of WebApp02$" in text
    assert "--principal=stranger;" in text
    assert "this host" not in text
    end(agent, host.lease_id)


def test_a_new_lease_amid_a_rotation_of_users(agent: FetcherAgent) -> None:
    """The ECS agent sends what the secret says, OLD:NEW, to both calls."""
    lease, cache = add(agent, username="stranger:reader1")
    assert principal(cache) == "WebApp02$@EXAMPLE.TEST"
    assert agent.metadata(lease)[0]["domainless_user"] == "reader1"
    assert renew(agent, "stranger:reader1") == [str(cache)]
    end(agent, lease)


@pytest.mark.parametrize("change", ["no plug-ins", "bare GUID", "no scope", "dollar", "not first"])
def test_documents_that_only_credentials_fetcher_takes(agent: FetcherAgent, change: str) -> None:
    document = json.loads(agent.document("WebApp02"))
    directory, name = document["ActiveDirectoryConfig"], "WebApp02"
    match change:
        case "no plug-ins":
            del document["CmsPlugins"]
        case "bare GUID":
            guid = "859E1386-BDB4-49E8-85C7-3070B13920E1"
            directory["HostAccountConfig"] = {
                "PluginGUID": guid,
                "PluginInput": {"CredentialArn": SECRET},
            }
        case "no scope":
            del directory["GroupManagedServiceAccounts"][0]["Scope"]
        case "dollar":
            document["DomainJoinConfig"]["MachineAccountName"] = name = "WebApp02$"
        case _:
            other = {"Name": "WebApp01", "Scope": "example.test"}
            directory["GroupManagedServiceAccounts"].insert(0, other)
    before = agent.log.read_text().count("spec-incomplete")
    made = agent.peer.call(
        "AddNonDomainJoinedKerberosLease",
        credspec_contents=[json.dumps(document)],
        username="reader1",
        password=PASSWORD,
        domain="example.test",
    )
    [path] = made.created_kerberos_file_paths
    assert path == f"{agent.tree}/{made.lease_id}/{name}"
    assert principal(Path(path, "krb5cc")) == "WebApp02$@EXAMPLE.TEST"
    if change in {"no plug-ins", "bare GUID", "no scope"}:
        assert agent.log.read_text().count("spec-incomplete") == before + 1
    end(agent, made.lease_id)


def test_a_wrong_password(agent: FetcherAgent) -> None:
    lease, cache = add(agent)
    with pytest.raises(grpc.RpcError, match="kdc-password-refused") as caught:
        add(agent, password="hunter2hunter2")
    text = str(caught.value.details())
    assert text.startswith("ERROR: cannot retrieve domainless user kerberos tickets: ")
    assert "hunter2" not in text
    with pytest.raises(grpc.RpcError, match="kdc-password-refused"):
        renew(agent, "reader1", "hunter2hunter2")
    # The right one is still there.
    before = cache.read_bytes()
    assert renew(agent, "reader1") == [str(cache)]
    assert cache.read_bytes() != before
    end(agent, lease)


def test_another_user_takes_over(agent: FetcherAgent) -> None:
    leases = dict(add(agent) for _ in range(3))
    caches = sorted(map(str, leases.values()))
    assert sorted(renew(agent, "reader1:reader2")) == caches
    assert {agent.metadata(lease)[0]["domainless_user"] for lease in leases} == {"reader2"}
    line = json.loads(agent.audit_log.read_text().splitlines()[-1])
    assert (line["decision"], line["uid"]) == ("granted", 0)
    assert line["host_account"].startswith("example.test\\reader2#")
    # The secret says OLD:NEW for as long as nobody changes it.
    assert sorted(renew(agent, "reader1:reader2")) == caches
    with pytest.raises(grpc.RpcError, match="failed to renew any") as caught:
        renew(agent, "reader1")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert sorted(renew(agent, "reader2:reader1")) == caches
    # One who may not read the password takes nothing over, and nothing is lost.
    before = {cache: Path(cache).read_bytes() for cache in caches}
    with pytest.raises(grpc.RpcError, match="password-not-permitted"):
        renew(agent, "reader1:stranger")
    assert {agent.metadata(lease)[0]["domainless_user"] for lease in leases} == {"reader1"}
    assert {cache: Path(cache).read_bytes() for cache in caches} == before
    end(agent, *leases)


def test_a_new_password(agent: FetcherAgent, lab: Lab) -> None:
    lease, cache = add(agent)
    new = f"New-{secrets.token_urlsafe(12)}.1"
    lab.samba_tool("user", "setpassword", "reader1", f"--newpassword={new}")
    try:
        assert renew(agent, "reader1", new) == [str(cache)]
    finally:
        lab.samba_tool("user", "setpassword", "reader1", f"--newpassword={PASSWORD}")
    end(agent, lease)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"username": "reader1:"}, "Error: invalid domainName/username: "),
        ({"username": "../x"}, "Error: invalid domainName/username: "),
        ({"domain": "example test"}, "Error: invalid domainName/username: "),
        ({"username": ""}, "Error: domainless AD user credentials is not valid/ "),
        ({"password": ""}, "Error: domainless AD user credentials is not valid/ "),
        ({"password": "x" * 104}, "Error: domainless AD user credentials is not valid/ "),
    ],
)
def test_users_that_are_none(agent: FetcherAgent, fields: dict[str, str], text: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        add(agent, **fields)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert str(caught.value.details()).startswith(text)
    assert agent.nothing_is_left()


def repeated(call: Callable[[], Any]) -> Any:
    """Call until it reaches the service.

    Others' passwords end the connection that all share, and gRPC itself repeats a call but once.
    """
    for _ in range(4):
        try:
            return call()
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
    return call()


def test_many_callers_with_several_users(agent: FetcherAgent) -> None:
    def life(number: int) -> None:
        name = f"reader{number % 2 + 1}"
        lease, cache = repeated(lambda: add(agent, username=name))
        if number % 5 == 0:
            repeated(lambda: renew(agent, name))
        assert principal(cache) == "WebApp02$@EXAMPLE.TEST"
        repeated(lambda: agent.peer.call("DeleteKerberosLease", lease_id=lease))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(life, range(40)))
    assert agent.nothing_is_left()


def test_a_restart_keeps_the_tickets_and_wants_the_password(
    agent: FetcherAgent, aws: AwsEndpoints
) -> None:
    lease, cache = add(agent)
    before = cache.read_bytes()
    agent.end()
    agent.start(AWS_ENDPOINT_URL=aws.url, AWS_CONFIG_FILE=str(agent.directory / "none"))
    assert cache.read_bytes() == before
    assert renew(agent, "reader1") == [str(cache)]
    assert cache.read_bytes() != before
    end(agent, lease)


def test_no_password_is_anywhere(agent: FetcherAgent) -> None:
    lease, _ = add(agent)
    for path in (agent.directory, agent.tree, agent.run_directory):
        for file in path.rglob("*"):
            if file.is_file():
                assert b"Correct-Horse" not in file.read_bytes(), file
    assert agent.process is not None
    for name in ("environ", "cmdline"):
        content = Path(f"/proc/{agent.process.pid}/{name}").read_bytes()
        assert b"Correct-Horse" not in content
    end(agent, lease)


@pytest.fixture
def stored(aws: AwsEndpoints, agent: FetcherAgent) -> AwsEndpoints:
    """Specs in S3 whose user is in Secrets Manager."""
    for number in (1, 2):
        document = json.loads(agent.document(f"WebApp0{number}"))
        document["ActiveDirectoryConfig"]["HostAccountConfig"] = {
            "PortableCcgVersion": "1",
            "PluginGUID": "{859E1386-BDB4-49E8-85C7-3070B13920E1}",
            "PluginInput": {"CredentialArn": SECRET},
        }
        aws.objects[f"specs/{number}.json"] = json.dumps(document).encode()
    aws.secrets[SECRET] = json.dumps(
        {"username": "reader1", "password": PASSWORD, "domainName": "example.test"}
    )
    return aws


def arns(task: str, *mounts: tuple[int, str]) -> list[str]:
    return [f"arn:aws:s3:::specs/{number}.json#{task}/{name}" for number, name in mounts]


def test_leases_by_arn_from_a_server_that_speaks_awss_apis(
    agent: FetcherAgent, stored: AwsEndpoints
) -> None:
    task = secrets.token_hex(16)
    wanted = arns(task, (2, "web"), (2, "db"))
    made = agent.peer.call("AddKerberosArnLease", credspec_arns=wanted, **ACCESS)
    assert made.lease_id == task
    found = {r.created_kerberos_file_paths: r.credspec_arns for r in made.krb_ticket_response_map}
    assert found == {
        f"{agent.tree}/{task}/{name}": "arn:aws:s3:::specs/2.json" for name in ("web", "db")
    }
    cache = agent.tree / task / "web/krb5cc"
    assert principal(cache) == "WebApp02$@EXAMPLE.TEST"
    assert agent.metadata(task)[0]["credential_arn"] == SECRET
    before = cache.read_bytes()
    answer = agent.peer.call("RenewKerberosArnLease", **ACCESS)
    assert answer.status == "successful"
    # Until version 1.3.1 it had the request of AddKerberosArnLease.
    for named in (wanted, wanted[:1], []):
        between = cache.read_bytes()
        older = agent.peer.message("AddKerberosArnLease", credspec_arns=named, **ACCESS)
        assert b"successful" in agent.peer.raw("RenewKerberosArnLease")(older, timeout=60)
        assert cache.read_bytes() != between
    unknown = agent.peer.message(
        "AddKerberosArnLease", credspec_arns=arns("0b", (2, "x")), **ACCESS
    )
    with pytest.raises(grpc.RpcError, match="failed to renew any"):
        agent.peer.raw("RenewKerberosArnLease")(unknown, timeout=60)
    assert cache.read_bytes() != before
    # The secret names another user now.
    secret = {"username": "reader2", "password": PASSWORD, "domainName": "example.test"}
    stored.secrets[SECRET] = json.dumps(secret)
    agent.peer.call("RenewKerberosArnLease", **ACCESS)
    assert {entry["domainless_user"] for entry in agent.metadata(task)} == {"reader2"}
    stored.secrets[SECRET] = json.dumps(secret | {"password": "hunter2hunter2"})
    before = cache.read_bytes()
    code, text = agent.peer.refusal("RenewKerberosArnLease", **ACCESS)
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "kdc-password-refused" in text
    assert "hunter2" not in text
    assert cache.read_bytes() == before
    end(agent, task)


def test_arns_of_which_one_fails_from_a_server_that_speaks_awss_apis(
    agent: FetcherAgent, stored: AwsEndpoints
) -> None:
    for wanted, text in (
        (arns("0a", (2, "web"), (1, "db")), "ERROR: Cannot get gMSA krb ticket: "),
        (arns("0a", (2, "web"), (3, "db")), "ERROR: credentialspec cannot be retrieved from s3: "),
        (arns("0a", (2, "web"), (2, "web")), "ERROR: found duplicate mount paths: "),
        (arns("..", (2, "web")), "ERROR: mount path is invalid: "),
        (arns("0a", (2, "../web")), "ERROR: mount path is invalid: "),
        (["arn:aws:s3:::specs/2.json"], "ERROR: credentialspec arn is not valid: "),
        ([], "ERROR: credentialspec arn should not be empty/not properly formatted: "),
    ):
        code, found = agent.peer.refusal("AddKerberosArnLease", credspec_arns=wanted, **ACCESS)
        assert code in FINAL
        assert found.startswith(text), found
        assert agent.nothing_is_left()
    refused = ACCESS | {"access_key_id": "AKIAOTHER"}
    _, found = agent.peer.refusal(
        "AddKerberosArnLease", credspec_arns=arns("0a", (2, "web")), **refused
    )
    assert "InvalidAccessKeyId" in found
    _, found = agent.peer.refusal("RenewKerberosArnLease", **(ACCESS | {"session_token": ""}))
    assert found.startswith("Error: access credentials should not be empty: ")
    # There is nothing to renew, which is no failure.
    assert agent.peer.call("RenewKerberosArnLease", **ACCESS).status == "successful"


def test_a_hanging_server_that_speaks_awss_apis_stops_nobody_else(
    agent: FetcherAgent, stored: AwsEndpoints
) -> None:
    stored.hang = True
    try:
        with pytest.raises(grpc.RpcError) as caught:
            agent.peer.call(
                "AddKerberosArnLease",
                seconds=2,
                credspec_arns=arns("0a", (2, "web")),
                **ACCESS,
            )
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert agent.peer.call("HealthCheck", seconds=60).status == "OK"
        lease, _ = add(agent)
    finally:
        stored.hang = False
    end(agent, lease)
