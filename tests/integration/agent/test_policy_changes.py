"""What the policy no longer allows ends, at a restart of the agent and at a reload."""

from __future__ import annotations

import json
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from credspec.errors import NotPermittedError
from credspec.lab.domain import Lab
from credspec.spec.host_account_plugins import CREDSPEC_PLUGIN_GUID
from support.agent.agent_process import AgentProcess, as_user, open_to_users
from support.credentials_fetcher.fetcher_agent import FetcherAgent

USER = pwd.getpwnam("nobody")
HOME = Path("/run/user") / str(USER.pw_uid)
USERS_LEASE = "d" * 32
WIDE = (
    '[policy]\naccounts = ["*"]\nkeytabs = ["WebApp02"]\nspec_sources = ["file", "raw"]\n'
    'users = ["nobody"]\n'
)
ASK = """
import json, sys
from pathlib import Path
from credspec.api_client import AgentClient
from credspec.errors import CredspecError
socket, method, path, body = sys.argv[1:]
try:
    AgentClient(Path(socket)).request(method, path, json.loads(body))
    print("granted")
except CredspecError as error:
    print(error.code)
"""

Change = Callable[[str], None]


@pytest.fixture
def users_directory() -> Iterator[Path]:
    """The runtime directory of an unprivileged user, as logind makes it."""
    HOME.mkdir(parents=True, exist_ok=True)
    owner = f"uid={USER.pw_uid},gid={USER.pw_gid},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", owner, "run", HOME], check=True)
    yield HOME
    subprocess.run(["umount", "-l", HOME], check=True)
    HOME.rmdir()


@pytest.fixture
def agent(lab: Lab, tmp_path: Path) -> Iterator[AgentProcess]:
    open_to_users(tmp_path)
    found = AgentProcess(lab, tmp_path, extra=WIDE)
    text = (tmp_path / "specs/one.json").read_text()
    (tmp_path / "specs/two.json").write_text(text.replace("WebApp01", "WebApp02"))
    yield found
    found.close()


def wait_for(condition: Callable[[], bool], agent: AgentProcess) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, agent.log.read_text()[-3000:]
        time.sleep(0.05)


def events(agent: AgentProcess, name: str) -> list[str]:
    return [line for line in agent.log.read_text().splitlines() if f"event='{name}'" in line]


@pytest.fixture(params=["restart", "reload"])
def change(request: pytest.FixtureRequest, agent: AgentProcess) -> Change:
    """Put another policy in force, in either way."""

    def to(policy: str) -> None:
        text = agent.config.read_text()
        agent.config.write_text(text[: text.index("[policy]")] + policy)
        if request.param == "restart":
            agent.end()
            agent.start()
            return
        before = len(events(agent, "policy-reloaded"))
        assert agent.process is not None
        agent.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(events(agent, "policy-reloaded")) > before, agent)

    return to


def put(agent: AgentProcess, number: int, spec: str, **more: Any) -> None:
    agent.mount(number)
    body = {
        "spec": spec,
        "container": f"container{number}",
        "runtime_state": str(agent.state(number)),
        "uid": 0,
        "gid": 0,
    }
    agent.client.request("PUT", f"/v1/leases/{number:032x}", body | more)


def ask_as_user(agent: AgentProcess) -> str:
    """Ask for a lease as the user; return ``granted`` or the code of the refusal."""
    state = HOME / "containers/9"
    body = {"spec": "file://one.json", "container": "users", "runtime_state": str(state)}
    body |= {"uid": USER.pw_uid, "gid": USER.pw_gid}
    made = [str(state), str(HOME / "credspec/leases" / USERS_LEASE)]
    subprocess.run(as_user("nobody", ["mkdir", "-p", *made]), check=True)
    arguments = [str(agent.run_directory / "agent.sock"), "PUT", f"/v1/leases/{USERS_LEASE}"]
    shown = subprocess.run(
        as_user("nobody", [sys.executable, "-c", ASK, *arguments, json.dumps(body)]),
        capture_output=True,
        text=True,
        check=True,
    )
    return shown.stdout.strip()


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def audited(agent: AgentProcess, decision: str) -> dict[str, list[str]]:
    """Return the codes of a decision by container."""
    entries = map(json.loads, agent.audit_log.read_text().splitlines())
    return {e["container"]: e["errors"] for e in entries if e["decision"] == decision}


def test_what_is_allowed_no_longer_ends(
    agent: AgentProcess, change: Change, users_directory: Path
) -> None:
    agent.start()
    document = (agent.directory / "specs/one.json").read_text()
    put(agent, 1, "file://one.json")
    put(agent, 2, "file://two.json")
    put(agent, 3, f"raw://{json.dumps(json.loads(document))}")
    put(agent, 4, "file://two.json", keytab=True)
    assert ask_as_user(agent) == "granted"
    theirs = users_directory / "credspec/leases" / USERS_LEASE
    kept = (agent.lease_directory(2) / "krb5cc").read_bytes()
    assert names(agent.lease_directory(4)) >= {"krb5cc", "krb5.keytab"}
    assert "krb5cc" in names(theirs)

    # The user is taken out.
    change(WIDE.replace('users = ["nobody"]', "users = []"))
    wait_for(lambda: "users" not in agent.lease_containers(), agent)
    wait_for(lambda: names(theirs) == set(), agent)  # a user's files may not answer at once
    assert ask_as_user(agent) == "agent-not-permitted"
    assert len(agent.lease_containers()) == 4

    # So are keytabs and documents of those who start containers.
    change('[policy]\naccounts = ["*"]\n')
    wait_for(lambda: len(agent.lease_containers()) == 2, agent)
    for number in (3, 4):
        assert names(agent.lease_directory(number)) == set()

    # So is an account, of a container that goes on.
    change('[policy]\naccounts = ["*2@example.test"]\n')
    wait_for(lambda: agent.lease_containers() == ["container2"], agent)
    assert names(agent.lease_directory(1)) == set()
    assert (agent.lease_directory(2) / "krb5cc").read_bytes() == kept
    assert audited(agent, "revoked") == {
        "users": ["policy-user"],
        "container3": ["policy-spec-source"],
        "container4": ["policy-keytab"],
        "container1": ["policy-account"],
    }
    assert len(events(agent, "lease-revoked")) == 4
    journal = {path.stem for path in (agent.run_directory / "journal").iterdir()}
    assert journal == {f"{2:032x}"}
    # Nobody was asked for any of it, and what is allowed is given as before.
    assert len(agent.client.get("/v1/identities")["identities"]) <= 2
    put(agent, 5, "file://two.json")
    with pytest.raises(NotPermittedError, match="policy-account"):
        put(agent, 6, "file://one.json")


def test_a_wrong_configuration_changes_nothing(agent: AgentProcess, lab: Lab) -> None:
    agent.start()
    put(agent, 1, "file://one.json")
    text = agent.config.read_text()
    assert agent.process is not None
    for wrong in ("[policy", '[policy]\naccounts = "*"\n', '[policy]\nusers = ["no-such-user"]\n'):
        before = len(events(agent, "policy-not-reloaded"))
        agent.config.write_text(text[: text.index("[policy]")] + wrong)
        agent.process.send_signal(signal.SIGHUP)
        wait_for(lambda n=before: len(events(agent, "policy-not-reloaded")) > n, agent)  # type: ignore[misc]
        assert "krb5cc" in names(agent.lease_directory(1))
    put(agent, 2, "file://two.json")
    # What only a restart changes is said.
    agent.config.write_text("wait_seconds = 1\n" + text)
    agent.process.send_signal(signal.SIGHUP)
    wait_for(lambda: len(events(agent, "policy-reloaded")) > 0, agent)
    assert "wait_seconds" in events(agent, "policy-reloaded")[0]
    assert len(agent.lease_containers()) == 2


def test_the_socket_is_opened_and_closed_to_users(
    agent: AgentProcess, users_directory: Path
) -> None:
    text = agent.config.read_text()
    agent.config.write_text(text.replace('users = ["nobody"]\n', ""))
    agent.start()
    assert ask_as_user(agent) == "agent-not-permitted"
    assert agent.process is not None
    agent.config.write_text(text)
    agent.process.send_signal(signal.SIGHUP)
    wait_for(lambda: len(events(agent, "policy-reloaded")) == 1, agent)
    assert ask_as_user(agent) == "granted"


def is_refused(agent: AgentProcess, spec: str) -> bool:
    """Ask for another lease of an account that is held; return whether the policy refuses it."""
    try:
        agent.put(3, spec)
    except NotPermittedError:
        return True
    return False


def test_a_lease_that_is_being_made_does_not_slip_through(agent: AgentProcess, lab: Lab) -> None:
    """The policy is changed while the domain is asked for the ticket."""
    agent.start()
    put(agent, 1, "file://one.json")
    agent.mount(2)
    answers: list[str] = []
    command = [sys.executable, "-c", ASK, str(agent.run_directory / "agent.sock"), "PUT"]
    body = {"spec": "file://two.json", "container": "c2", "uid": 0, "gid": 0}
    body["runtime_state"] = str(agent.state(2))
    raw = f"raw://{json.dumps(json.loads((agent.directory / 'specs/one.json').read_text()))}"
    agent.mount(3)
    assert not is_refused(agent, raw)
    lab.pause_dc()
    try:
        asking = subprocess.Popen(
            [*command, f"/v1/leases/{2:032x}", json.dumps(body)], stdout=subprocess.PIPE, text=True
        )
        journal = agent.run_directory / "journal" / f"{2:032x}.json"
        wait_for(journal.exists, agent)
        changed = agent.config.read_text().replace('["*"]', '["WebApp01"]', 1)
        agent.config.write_text(changed.replace('["file", "raw"]', '["file"]'))
        assert agent.process is not None
        agent.process.send_signal(signal.SIGHUP)
        # Its event comes when the lease has ended; what needs no domain shows it before.
        wait_for(lambda: is_refused(agent, raw), agent)
    finally:
        lab.resume_dc()
    answers.append(asking.communicate()[0].strip())
    assert answers == ["policy-account"]
    assert names(agent.lease_directory(2)) == set()
    wait_for(lambda: len(events(agent, "policy-reloaded")) == 1, agent)
    assert agent.lease_containers() == ["container1"]


def test_callers_of_credentials_fetchers_interface(lab: Lab, tmp_path: Path) -> None:
    """A user who may call no longer loses the tickets of all calls, root keeps its own."""
    open_to_users(tmp_path)
    agent = FetcherAgent(lab, tmp_path, extra='users = ["nobody"]\n[policy]\naccounts = ["*"]\n')
    try:
        agent.start()
        wait_for(agent.socket.exists, agent)
        made = agent.peer.call("AddKerberosLease", credspec_contents=[agent.document("WebApp01")])
        roots = Path(made.created_kerberos_file_paths[0], "krb5cc")
        program = (
            "import sys; sys.path[:0] = sys.argv[3:]\n"
            "from pathlib import Path\n"
            "from support.credentials_fetcher.peer_client import PeerClient\n"
            "spec = [sys.argv[2].replace('WebApp01', name) for name in ('WebApp01', 'WebApp02')]\n"
            "answer = PeerClient(Path(sys.argv[1])).call('AddKerberosLease', "
            "credspec_contents=spec)\n"
            "print(*answer.created_kerberos_file_paths)\n"
        )
        arguments = [str(agent.socket), agent.spec, str(Path(__file__).parents[2])]
        ask = as_user("nobody", [sys.executable, "-c", program, *arguments])
        asked = subprocess.run(ask, capture_output=True, text=True, check=False)
        assert asked.returncode == 0, asked.stderr
        theirs = [Path(each, "krb5cc") for each in asked.stdout.split()]
        assert [path.exists() for path in (roots, *theirs)] == [True] * 3
        text = agent.config.read_text()

        def reload(changed: str) -> None:
            before = len(events(agent, "policy-reloaded"))
            agent.config.write_text(changed)
            assert agent.process is not None
            agent.process.send_signal(signal.SIGHUP)
            wait_for(lambda: len(events(agent, "policy-reloaded")) > before, agent)

        # One account of two is taken out: the user may still end what is left.
        reload(text.replace('accounts = ["*"]', 'accounts = ["WebApp01"]'))
        assert [path.exists() for path in (roots, *theirs)] == [True, True, False]
        reload(text.replace('users = ["nobody"]', "users = []"))
        assert [path.exists() for path in (roots, *theirs)] == [True, False, False]
        asked = subprocess.run(ask, capture_output=True, text=True, check=False)
        assert asked.returncode != 0
        # What is left of it ends by root's call, as ever.
        lease = theirs[0].relative_to(agent.tree).parts[0]
        agent.peer.call("DeleteKerberosLease", lease_id=lease)
        assert not (agent.tree / lease).exists()
        agent.peer.call("DeleteKerberosLease", lease_id=made.lease_id)
        assert agent.nothing_is_left()
    finally:
        agent.close()


def test_a_replaced_host_account_does_not_get_around_it(lab: Lab, tmp_path: Path) -> None:
    """Renewing with a user and password is a grant, too."""
    password = "Correct-Horse.7 'battery\""
    lab.samba_tool("user", "create", "changer", password)
    lab.samba_tool("group", "addmembers", "LabHosts", "changer")
    agent = FetcherAgent(lab, tmp_path, extra='[policy]\naccounts = ["*"]\n')
    try:
        agent.start()
        wait_for(agent.socket.exists, agent)
        given = {"username": "changer", "password": password, "domain": lab.dns_domain}
        document = [agent.document("WebApp02")]
        made = agent.peer.call(
            "AddNonDomainJoinedKerberosLease", credspec_contents=document, **given
        )
        cache = Path(made.created_kerberos_file_paths[0], "krb5cc")
        assert cache.exists()
        text = agent.config.read_text()
        agent.config.write_text(text.replace('accounts = ["*"]', 'accounts = ["WebApp01"]'))
        assert agent.process is not None
        agent.process.send_signal(signal.SIGHUP)
        wait_for(lambda: not cache.exists(), agent)
        with pytest.raises(grpc.RpcError):
            agent.peer.call("RenewNonDomainJoinedKerberosLease", **given)
        assert not cache.exists()
        agent.peer.call("DeleteKerberosLease", lease_id=made.lease_id)
    finally:
        agent.close()
        lab.samba_tool("user", "delete", "changer")


def test_a_provider_that_is_enabled_no_longer(lab: Lab, tmp_path: Path) -> None:
    """Its leases end at the next start, too; of a reload see test_provider_reload.py."""
    password = "Correct-Horse.7battery"
    lab.samba_tool("user", "create", "giver", password)
    lab.samba_tool("group", "addmembers", "LabHosts", "giver")
    secret = tmp_path / "secrets" / "giver"
    secret.parent.mkdir(mode=0o700)
    secret.write_text(
        json.dumps({"domainName": lab.dns_domain, "username": "giver", "password": password})
    )
    secret.chmod(0o600)
    extra = f'[providers]\nenabled = ["file"]\n[providers.file]\ndirectory = "{secret.parent}"\n'
    agent = AgentProcess(lab, tmp_path, extra=extra)
    spec = json.loads((tmp_path / "specs/one.json").read_text().replace("WebApp01", "WebApp02"))
    spec["ActiveDirectoryConfig"]["HostAccountConfig"] = {
        "PortableCcgVersion": "1",
        "PluginGUID": CREDSPEC_PLUGIN_GUID,
        "PluginInput": "file:giver",
    }
    (tmp_path / "specs/given.json").write_text(json.dumps(spec))
    try:
        agent.start()
        put(agent, 1, "file://given.json")
        put(agent, 2, "file://one.json")
        agent.end()
        text = agent.config.read_text()
        agent.config.write_text(text[: text.index("[providers]")])
        agent.start()
        assert agent.lease_containers() == ["container2"]
        assert names(agent.lease_directory(1)) == set()
        assert audited(agent, "revoked") == {"container1": ["host-account-not-enabled"]}
    finally:
        agent.close()
        lab.samba_tool("user", "delete", "giver")
