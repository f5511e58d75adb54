"""Leases for unprivileged users: in their own directories, for nobody but themselves."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from credspec.lab.domain import Lab
from support.agent.agent_process import AgentProcess, as_user, open_to_users

USER, ANOTHER = pwd.getpwnam("nobody"), pwd.getpwnam("daemon")
HOME = Path("/run/user") / str(USER.pw_uid)
LEASES = HOME / "credspec" / "leases"
LEASE = "c" * 32

ASK = """
import json, sys
from pathlib import Path
from credspec.api_client import AgentClient
from credspec.errors import CredspecError
socket, method, path, body = sys.argv[1:]
try:
    print(json.dumps(AgentClient(Path(socket)).request(method, path, json.loads(body))))
except CredspecError as error:
    print(json.dumps([p.code for p in error.problems]))
"""

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def agent(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    directory = tmp_path_factory.mktemp("users")
    open_to_users(directory)
    extra = '[policy]\nusers = ["nobody", "daemon"]\n'
    running = AgentProcess(lab, directory, extra=extra)
    HOME.mkdir(parents=True, exist_ok=True)
    owner = f"uid={USER.pw_uid},gid={USER.pw_gid},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", owner, "run", HOME], check=True)
    try:
        running.start()
        yield running
    finally:
        running.close()
        subprocess.run(["umount", "-l", HOME], check=True)
        HOME.rmdir()


@pytest.fixture
def ask(agent: AgentProcess) -> Iterator[Ask]:
    """Ask as a user; what the user made is gone afterwards."""

    def call(
        method: str,
        user: pwd.struct_passwd = USER,
        lease: str = LEASE,
        path: str | None = None,
        **body: Any,
    ) -> Any:
        state = f"/run/user/{user.pw_uid}/state"
        wanted = {"spec": "file://one.json", "container": "c", "runtime_state": state}
        wanted |= {"uid": user.pw_uid, "gid": user.pw_gid} | body
        socket, asked = str(agent.run_directory / "agent.sock"), path or f"/v1/leases/{lease}"
        arguments = [socket, method, asked]
        shown = subprocess.run(
            as_user(user.pw_name, [sys.executable, "-c", ASK, *arguments, json.dumps(wanted)]),
            capture_output=True,
            text=True,
            check=False,
        )
        assert shown.returncode == 0, shown.stderr
        return json.loads(shown.stdout)

    (HOME / "state").mkdir()
    yield call
    agent.client.request("DELETE", f"/v1/leases/{LEASE}")
    subprocess.run(["rm", "-rf", *HOME.iterdir()], check=True)


def make_directory(path: Path = LEASES / LEASE) -> Path:
    """Do what the shim does as the user."""
    path.mkdir(parents=True)
    for made in (HOME / "credspec", LEASES, path):
        if made.exists():
            os.chown(made, USER.pw_uid, USER.pw_gid)
    return path


def test_tickets_in_the_users_own_directory(agent: AgentProcess, ask: Ask) -> None:
    made = make_directory()
    answer = ask("PUT")
    assert (answer["user"], answer["ready"]) == (USER.pw_uid, True)
    assert {path.name for path in made.iterdir()} == {"krb5cc", "krb5.conf"}
    assert (made / "krb5cc").stat().st_uid == USER.pw_uid
    # The agent's restart finds them again.
    agent.end()
    agent.start()
    assert agent.lease_containers() == ["c"]
    assert ask("DELETE") is None
    assert list(made.iterdir()) == []


def test_tickets_of_services_and_their_end(agent: AgentProcess, ask: Ask) -> None:
    """Only root cuts a container off; its user's own is no exception."""
    made = make_directory()
    services = ["postgres/db.example.test"]
    answer = ask("PUT", tickets="services", services=services)
    assert (answer["tickets"], answer["services"]) == ("services", services)
    assert b"krbtgt" not in (made / "krb5cc").read_bytes()
    assert (made / "krb5cc").stat().st_uid == USER.pw_uid
    assert ask("POST", path=f"/v1/leases/{LEASE}/revoke") == ["caller-not-permitted"]
    assert (made / "krb5cc").exists()
    agent.client.request("POST", f"/v1/leases/{LEASE}/revoke")
    assert list(made.iterdir()) == []
    assert ask("PUT") == ["lease-revoked"]
    assert list(made.iterdir()) == []
    [seen] = ask("GET", path="/v1/leases")["leases"]
    assert seen["revoked"]
    assert ask("DELETE") is None


def test_leases_of_others(agent: AgentProcess, ask: Ask) -> None:
    make_directory()
    ask("PUT")
    assert ask("DELETE", ANOTHER) == ["lease-not-yours"]
    assert ask("PUT", ANOTHER) == ["lease-not-yours"]
    assert agent.lease_containers() == ["c"]
    # A lease of the host's own engines.
    agent.mount(2)
    agent.put(2)
    assert ask("DELETE", lease=f"{2:032x}") == ["lease-not-yours"]
    agent.delete(2)
    agent.unmount(2)


def test_owners_whom_the_user_cannot_be(ask: Ask) -> None:
    make_directory()
    assert ask("PUT", uid=0) == ["owner-not-permitted"]
    assert ask("PUT", gid=0) == ["owner-not-permitted"]
    assert ask("PUT", uid=ANOTHER.pw_uid) == ["owner-not-permitted"]


@pytest.mark.parametrize(
    "state",
    [
        "/",
        "/root",
        "/root/secret",
        f"/run/user/{ANOTHER.pw_uid}/state",
        f"/run/user/{USER.pw_uid}",
        f"/run/user/{USER.pw_uid}/../{ANOTHER.pw_uid}/state",
        "/usr/sbin/state",
        "/proc/1/root",
    ],
)
def test_runtime_states_that_are_not_the_users(agent: AgentProcess, ask: Ask, state: str) -> None:
    make_directory()
    assert ask("PUT", runtime_state=state) == ["runtime-state-not-permitted"]
    assert agent.lease_containers() == []


def test_a_user_sees_its_own_leases_only(agent: AgentProcess, ask: Ask) -> None:
    make_directory()
    ask("PUT")
    agent.mount(2)
    agent.put(2)
    asked = [
        ask("GET", path="/v1/leases")["leases"],
        ask("GET", ANOTHER, path="/v1/leases")["leases"],
        ask("GET", lease=f"{2:032x}"),
        ask("GET", ANOTHER),
        ask("GET", ANOTHER, path="/v1/identities")["identities"],
        ask("GET", ANOTHER, path="/v1/domains")["domains"],
    ]
    agent.delete(2)
    agent.unmount(2)
    assert [lease["user"] for lease in asked[0]] == [USER.pw_uid]
    assert asked[1:] == [[], ["lease-not-found"], ["lease-not-found"], [], []]


def link_above() -> None:
    elsewhere = HOME / "elsewhere"
    make_directory(elsewhere / "leases" / LEASE)
    (HOME / "credspec").symlink_to(elsewhere)


def link_itself() -> None:
    make_directory(LEASES / "other")
    (LEASES / LEASE).symlink_to(LEASES / "other")


def link_to_the_hosts() -> None:
    make_directory(LEASES)
    (LEASES / LEASE).symlink_to("/etc")


def somebody_elses() -> None:
    make_directory()
    os.chown(LEASES, ANOTHER.pw_uid, ANOTHER.pw_gid)


def a_file() -> None:
    make_directory(LEASES)
    (LEASES / LEASE).write_text("")


@pytest.mark.parametrize(
    "prepare", [link_above, link_itself, link_to_the_hosts, somebody_elses, a_file, HOME.exists]
)
def test_directories_that_are_none(ask: Ask, prepare: Callable[[], None]) -> None:
    before = sorted(Path("/etc").iterdir())
    prepare()
    assert ask("PUT") == ["lease-directory-missing"]
    assert sorted(Path("/etc").iterdir()) == before


def test_a_disk_is_no_place_for_tickets(ask: Ask) -> None:
    make_directory()
    # Not in /tmp, which may be memory.
    with tempfile.TemporaryDirectory(prefix="credspec-disk-", dir="/var/tmp") as disk:
        os.chown(disk, USER.pw_uid, USER.pw_gid)
        subprocess.run(["mount", "--bind", disk, LEASES / LEASE], check=True)
        try:
            assert ask("PUT") == ["lease-directory-missing"]
        finally:
            subprocess.run(["umount", LEASES / LEASE], check=True)
        assert list(Path(disk).iterdir()) == []
