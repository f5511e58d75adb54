"""Passwords of credentials-fetcher's calls are in the agent's memory for as long as needed.

All of its writable memory is searched. The agent's garbage collector is off, so what is held by a
circle of references is found, however soon a collection would have come.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import grpc
import pytest

from credspec.errors import CredspecError
from credspec.lab.domain import Lab
from support.credentials_fetcher.fetcher_agent import FetcherAgent
from support.credentials_fetcher.peer_client import CALLS, PeerClient
from support.machine.process_memory import texts_in_memory, texts_left_in_memory
from support.servers.aws_endpoints import ACCESS_KEY, AwsEndpoints

SECRET = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:reader-AbCdEf"
ADD, RENEW = "AddNonDomainJoinedKerberosLease", "RenewNonDomainJoinedKerberosLease"
INLINE_GUID = "{6F1B2F5C-2B3B-4C0B-9B8A-3B5E6C7D8E9F}"
# What is being freed while it is looked at may be seen once more. Much less than a minute, for
# which identities linger.
SECONDS = 20.0


def new_password(kind: str = "") -> str:
    return f"{kind}-{secrets.token_hex(12)}.Aa1"


class Reader:
    """A user of the domain who may read WebApp02's password."""

    name = "reader1"

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.password = new_password("reader")
        lab.samba_tool("user", "create", self.name, self.password)
        lab.samba_tool("group", "addmembers", "LabHosts", self.name)

    def change(self, password: str) -> None:
        self.lab.samba_tool("user", "setpassword", self.name, f"--newpassword={password}")
        self.password = password

    def close(self) -> None:
        self.lab.samba_tool("user", "delete", self.name)


@pytest.fixture(scope="module")
def reader(lab: Lab) -> Iterator[Reader]:
    found = Reader(lab)
    yield found
    found.close()


@pytest.fixture(scope="module")
def aws() -> Iterator[AwsEndpoints]:
    found = AwsEndpoints()
    yield found
    found.close()


@pytest.fixture(scope="module")
def agent(
    lab: Lab, reader: Reader, aws: AwsEndpoints, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FetcherAgent]:
    extra = '[providers]\nenabled = ["inline"]\n[policy]\nspec_sources = ["file", "raw"]\n'
    running = FetcherAgent(lab, tmp_path_factory.mktemp("cf"), extra=extra)
    running.prelude = "import gc; gc.disable()"
    try:
        running.start(AWS_ENDPOINT_URL=aws.url, AWS_CONFIG_FILE=str(running.directory / "none"))
        yield running
    finally:
        running.close()


@pytest.fixture(autouse=True)
def ended(agent: FetcherAgent) -> Iterator[None]:
    """What a test that failed has left is not the next one's."""
    yield
    for lease in list(agent.tree.iterdir()):
        agent.peer.call("DeleteKerberosLease", lease_id=lease.name)


def process_id(agent: FetcherAgent) -> int:
    assert agent.process is not None
    return agent.process.pid


def left(agent: FetcherAgent, *texts: str) -> dict[str, int]:
    return texts_left_in_memory(process_id(agent), texts, seconds=SECONDS)


def is_there_once(agent: FetcherAgent, text: str) -> bool:
    """Whether a text is in the agent's memory, and nothing is left of the calls that brought it."""
    end = time.monotonic() + SECONDS
    while (found := texts_in_memory(process_id(agent), [text])) != {text: 1}:
        if not found or time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def add(agent: FetcherAgent, peer: PeerClient | None = None, **fields: object) -> str:
    given = {
        "credspec_contents": [agent.document("WebApp02")],
        "username": "reader1",
        "domain": "example.test",
    }
    return str((peer or agent.peer).call(ADD, **(given | fields)).lease_id)


def test_of_a_lease_it_is_there_once_and_gone_with_it(agent: FetcherAgent, reader: Reader) -> None:
    leases = [add(agent, password=reader.password) for _ in range(3)]
    assert is_there_once(agent, reader.password)
    for lease in leases[:2]:
        agent.peer.call("DeleteKerberosLease", lease_id=lease)
    assert is_there_once(agent, reader.password)
    # The last lease can still be renewed with it.
    agent.peer.call(RENEW, username="reader1", password=reader.password, domain="example.test")
    agent.peer.call("DeleteKerberosLease", lease_id=leases[2])
    assert left(agent, reader.password) == {}
    assert agent.nothing_is_left()


def test_a_lease_soon_after_needs_no_more_than_its_own_call(
    agent: FetcherAgent, reader: Reader
) -> None:
    # The identity of the one before lingers, and knows its password no more.
    agent.peer.call("DeleteKerberosLease", lease_id=add(agent, password=reader.password))
    lease = add(agent, password=reader.password)
    agent.peer.call(RENEW, username="reader1", password=reader.password, domain="example.test")
    agent.peer.call("DeleteKerberosLease", lease_id=lease)
    assert left(agent, reader.password) == {}


def test_one_that_is_replaced_is_gone(agent: FetcherAgent, reader: Reader) -> None:
    lease, old, new = add(agent, password=reader.password), reader.password, new_password("new")
    wrong = new_password("wrong")
    with pytest.raises(grpc.RpcError, match="kdc-password-refused"):
        agent.peer.call(RENEW, username="reader1", password=wrong, domain="example.test")
    assert left(agent, wrong) == {}
    reader.change(new)
    agent.peer.call(RENEW, username="reader1", password=new, domain="example.test")
    assert left(agent, old) == {}
    agent.peer.call("DeleteKerberosLease", lease_id=lease)
    assert left(agent, new) == {}


REFUSED: dict[str, Callable[[FetcherAgent], dict[str, object]]] = {
    "a user that is unknown": lambda _: {"username": "nobody77"},
    "a password that is wrong": lambda _: {},
    "a password beyond ASCII": lambda _: {"password": f"пароль-{secrets.token_hex(12)}"},
    "a password beyond the Basic Multilingual Plane": lambda _: {
        "password": f"\U0001f511-{secrets.token_hex(12)}"
    },
    "a domain that is unknown": lambda _: {"domain": "nowhere.test"},
    "a malformed domain": lambda _: {"domain": "no domain"},
    "a password that is too long": lambda _: {"password": secrets.token_hex(60)},
    "no spec": lambda _: {"credspec_contents": []},
    "a malformed spec": lambda _: {"credspec_contents": ["{}"]},
    "an account that is unknown": lambda a: {"credspec_contents": [a.document("Nobody01")]},
    "several accounts, one unknown": lambda a: {
        "credspec_contents": [a.document(name) for name in ("WebApp02", "Nobody01", "Nobody02")]
    },
}


@pytest.mark.parametrize("kind", REFUSED)
def test_of_a_refused_call_nothing_is_left(agent: FetcherAgent, kind: str) -> None:
    fields = {"password": new_password("refused"), **REFUSED[kind](agent)}
    with pytest.raises(grpc.RpcError):
        add(agent, **fields)
    assert left(agent, str(fields["password"])) == {}


def test_of_an_account_that_the_user_may_not_read_nothing_is_left(
    agent: FetcherAgent, reader: Reader
) -> None:
    with pytest.raises(grpc.RpcError, match="password-not-permitted"):
        add(agent, credspec_contents=[agent.document("WebApp01")], password=reader.password)
    assert left(agent, reader.password) == {}


@pytest.mark.parametrize("call", sorted(CALLS))
def test_of_a_message_that_is_none_nothing_is_left(agent: FetcherAgent, call: str) -> None:
    text = new_password("malformed")
    with pytest.raises(grpc.RpcError):
        agent.peer.raw(call)(text.encode() + b"\xff\xfe", timeout=30)
    assert left(agent, text) == {} or call in {"HealthCheck", "DeleteKerberosLease"}


def test_of_a_call_that_is_none_and_of_one_too_long_nothing_is_left(agent: FetcherAgent) -> None:
    unknown, long = new_password("unknown"), new_password("long")
    with pytest.raises(grpc.RpcError):
        agent.peer.raw("AddLease")(unknown.encode(), timeout=30)
    with pytest.raises(grpc.RpcError):
        add(agent, password=long, credspec_contents=["x" * (5 << 20)])
    assert left(agent, unknown, long) == {}


def test_of_callers_that_give_up_nothing_is_left(agent: FetcherAgent, reader: Reader) -> None:
    wrong = [new_password("given-up") for _ in range(6)]
    for number, password in enumerate([*wrong, reader.password]):
        with suppress(grpc.RpcError):
            lease = add(agent, password=password, seconds=0.02 * number)
            agent.peer.call("DeleteKerberosLease", lease_id=lease)
    going = PeerClient(agent.socket)
    asked = going.raw(ADD).future(
        b"\x12\x07reader1\x1a\x18" + (kept := secrets.token_hex(12)).encode()
    )
    going.close()
    asked.cancel()
    assert left(agent, *wrong, reader.password, kept) == {}
    assert agent.nothing_is_left()


def test_many_at_once_leave_nothing(agent: FetcherAgent, reader: Reader) -> None:
    wrong = [new_password("many") for _ in range(20)]
    asked = []
    for number, password in enumerate(wrong):
        fields = {"username": "reader1" if number % 2 else f"nobody{number}", "password": password}
        message = agent.peer.message(
            ADD, credspec_contents=[agent.document("WebApp02")], domain="example.test", **fields
        )
        asked.append(agent.peer.raw(ADD).future(message, timeout=60))
    for call in asked:
        assert call.exception() is not None
    assert left(agent, *wrong) == {}


def test_of_calls_with_arns_nothing_is_left_from_a_server_that_speaks_awss_apis(
    agent: FetcherAgent, aws: AwsEndpoints, reader: Reader
) -> None:
    document = json.loads(agent.document("WebApp02"))
    document["ActiveDirectoryConfig"]["HostAccountConfig"] = {
        "PortableCcgVersion": "1",
        "PluginGUID": "{859E1386-BDB4-49E8-85C7-3070B13920E1}",
        "PluginInput": {"CredentialArn": SECRET},
    }
    aws.objects["specs/2.json"] = json.dumps(document).encode()

    def stored(password: str) -> None:
        aws.secrets[SECRET] = json.dumps(
            {"username": "reader1", "password": password, "domainName": "example.test"}
        )

    access = {
        "access_key_id": ACCESS_KEY,
        "secret_access_key": new_password("secret-key"),
        "session_token": aws.session_token,
        "region": "eu-west-1",
    }
    wrong, task = new_password("wrong"), secrets.token_hex(16)
    arns = [f"arn:aws:s3:::specs/2.json#{task}/web"]
    stored(reader.password)
    agent.peer.call("AddKerberosArnLease", credspec_arns=arns, **access)
    agent.peer.call("RenewKerberosArnLease", **access)
    stored(wrong)
    agent.peer.refusal("RenewKerberosArnLease", **access)
    assert left(agent, wrong, access["secret_access_key"], access["session_token"]) == {}
    assert is_there_once(agent, reader.password)
    agent.peer.call("DeleteKerberosLease", lease_id=task)
    assert left(agent, reader.password) == {}


def spec_with_account(agent: FetcherAgent, account: str) -> str:
    document = json.loads(agent.document("WebApp02"))
    document["ActiveDirectoryConfig"]["HostAccountConfig"] = {
        "PortableCcgVersion": "1",
        "PluginGUID": INLINE_GUID,
        "PluginInput": account,
    }
    return json.dumps(document)


def test_of_an_account_in_a_spec_nothing_is_left(agent: FetcherAgent, reader: Reader) -> None:
    wrong = new_password("wrong")
    spec = spec_with_account(agent, f"example.test:reader1:{reader.password}")
    made = agent.peer.call("AddKerberosLease", credspec_contents=[spec])
    assert is_there_once(agent, reader.password)
    agent.peer.call("DeleteKerberosLease", lease_id=made.lease_id)
    spec = spec_with_account(agent, f"example.test:reader1:{wrong}")
    agent.peer.refusal("AddKerberosLease", credspec_contents=[spec])
    assert left(agent, reader.password, wrong) == {}


def test_of_an_account_in_a_spec_of_the_agents_own_api_nothing_is_left(
    agent: FetcherAgent, reader: Reader
) -> None:
    agent.mount(7)
    try:
        agent.put(7, "raw://" + spec_with_account(agent, f"example.test:reader1:{reader.password}"))
        assert is_there_once(agent, reader.password)
        agent.delete(7)
        refused = [new_password("refused") for _ in range(3)]
        for password in refused:
            with pytest.raises(CredspecError):
                agent.put(
                    7, "raw://" + spec_with_account(agent, f"example.test:reader1:{password}")
                )
        malformed = new_password("malformed")
        with pytest.raises(CredspecError):
            agent.put(7, f"raw://{{{malformed}")
        assert left(agent, reader.password, *refused, malformed) == {}
    finally:
        agent.unmount(7)
