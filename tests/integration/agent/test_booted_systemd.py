"""The agent under a real systemd with its hardened unit, installed by ``credspec setup agent``."""

from __future__ import annotations

import json
import pwd
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from credspec.cli.new import NewSpecRequest, make_credential_spec
from credspec.lab.domain import Lab
from credspec.setup.systemd import AGENT_SOCKET, AGENT_UNIT
from support.credentials_fetcher.peer_client import PeerClient
from support.machine.booted_systemd import BootedSystemd

CREDSPEC = str(Path(sys.executable).with_name("credspec"))
LEASE = "0" * 31 + "1"
PUT = f"""
from pathlib import Path
from credspec.api_client import AgentClient
client = AgentClient(Path("/run/credspec/agent.sock"))
body = {{"spec": "file://one.json", "container": "c1", "runtime_state": "/run/test/state",
         "uid": 1000, "gid": 1000}}
print(client.request("PUT", "/v1/leases/{LEASE}", body)["accounts"])
"""

BROKERED = "0" * 31 + "2"
SERVE = f"""
import sys
from pathlib import Path
from credspec.api_client import AgentClient
from credspec.contract.kdc_sockets import serve_kdc
client = AgentClient(Path("/run/credspec/agent.sock"))
body = {{"spec": "file://one.json", "container": "b1", "runtime_state": "/run/test/brokered",
         "uid": 0, "gid": 0, "tickets": "broker", "services": ["ldap/*.example.test"]}}
client.request("PUT", "/v1/leases/{BROKERED}", body)
serve_kdc("{BROKERED}", "/run/credspec/agent.sock", f"/proc/{{sys.argv[1]}}/ns/net")
"""
RELEASE = f"""
from pathlib import Path
from credspec.api_client import AgentClient
AgentClient(Path("/run/credspec/agent.sock")).request("DELETE", "/v1/leases/{BROKERED}")
"""

# As docs/runtimes/process.md has it.
SERVICE = f"""
[Unit]
After={AGENT_UNIT}

[Service]
Environment=CREDSPEC_CONFIG=/run/test/config.toml
ExecStart=+{CREDSPEC} run --spec one.json --user nobody -- \
  /bin/sh -c 'klist > /run/test/shown/klist 2>&1; exec sleep 600'
"""


LIST = """
from pathlib import Path
from credspec.api_client import AgentClient
from credspec.errors import CredspecError
client = AgentClient(Path("/run/credspec/agent.sock"))
try:
    print([lease["container"] for lease in client.get("/v1/leases")["leases"]])
except CredspecError as error:
    print(error.code)
"""
# A user that only systemd knows, once the program runs: the C library asks it on a Unix socket.
APPLICATION = """
[Service]
Type=exec
DynamicUser=yes
User=credspec-app
ExecStart=sleep 3600
"""

# /dev is shared with this machine: no messages of its kernel, and no /dev/log.
JOURNAL = {
    "/run/systemd/journald.conf.d/test.conf": "[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=\n",
    "/etc/systemd/system/systemd-journald.service": (
        "[Unit]\nDefaultDependencies=no\n"
        "[Service]\nType=notify\nExecStart=/lib/systemd/systemd-journald\n"
    ),
}


@pytest.fixture(scope="module")
def booted(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BootedSystemd]:
    found = BootedSystemd(tmp_path_factory.mktemp("systemd") / "log")
    yield found
    found.close()


@pytest.fixture(scope="module")
def installed(
    lab: Lab, booted: BootedSystemd, tmp_path_factory: pytest.TempPathFactory
) -> BootedSystemd:
    """The service with this domain's configuration."""
    specs = tmp_path_factory.mktemp("specs")
    make_credential_spec(NewSpecRequest(account_name="WebApp01", path=str(specs / "one.json")))
    # /tmp is the service's own: what it shall see is copied to where it can.
    text = (specs / "one.json").read_text()
    config = f'spec_directory = "/run/test/specs"\n[host_identity]\nkeytab = "{lab.host_keytab}"\n'
    drop_in = (
        "[Service]\nEnvironment=CREDSPEC_CONFIG=/run/test/config.toml\n"
        f"Environment=KRB5_CONFIG={lab.krb5_conf}\n"
    )
    booted.run("mkdir", "-p", "/run/test/specs", f"/etc/systemd/system/{AGENT_UNIT}.d")
    for path, content in (
        ("/run/test/specs/one.json", text),
        ("/run/test/config.toml", config),
        (f"/etc/systemd/system/{AGENT_UNIT}.d/test.conf", drop_in),
    ):
        assert booted.run("tee", path, given=content).returncode == 0
    done = booted.run(CREDSPEC, "setup", "agent")
    assert done.returncode == 0, done.stderr
    return booted


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def leases(booted: BootedSystemd) -> list[str]:
    shown = booted.run("env", "CREDSPEC_CONFIG=/run/test/config.toml", CREDSPEC, "status",
                       "--output", "json")  # fmt: skip
    return [lease["container"] for lease in json.loads(shown.stdout or "{}").get("leases", ())]


def test_it_runs_and_setup_again_changes_nothing(installed: BootedSystemd) -> None:
    assert installed.show(AGENT_UNIT, "ActiveState") == "active"
    assert installed.show(AGENT_UNIT, "UnitFileState") == "enabled"
    assert leases(installed) == []
    assert installed.run(CREDSPEC, "setup", "agent").stdout == "nothing to change\n"


def test_it_has_no_more_than_it_needs(installed: BootedSystemd) -> None:
    process = Path("/proc", str(installed.pid_outside(AGENT_UNIT)))
    status = dict(
        line.split(":\t", 1)
        for line in (process / "status").read_text().splitlines()
        if ":\t" in line
    )
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(status[name], 16) == 0b11, name
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    limits = (process / "limits").read_text()
    assert "Max core file size        0                    0" in limits
    environment = (process / "environ").read_bytes()
    assert b"PYTHONMALLOC=pymalloc_debug" in environment
    writable = (process / "mountinfo").read_text()
    assert any(" / " in line and " ro," in line for line in writable.splitlines())


def test_a_lease_on_a_mount_made_later(installed: BootedSystemd) -> None:
    """The shim mounts on the host; the service, in a mount namespace of its own, writes there."""
    directory = f"/run/credspec/leases/{LEASE}"
    assert installed.run("mkdir", "-p", directory, "/run/test/state").returncode == 0
    assert installed.run("mount", "-t", "tmpfs", "lease", directory).returncode == 0
    made = installed.run(sys.executable, "-c", PUT)
    assert made.stdout == "['WebApp01']\n", made.stderr
    listed = installed.run("stat", "-c", "%u %a %n", f"{directory}/krb5cc").stdout
    assert listed.startswith("1000 600 ")
    audit = installed.run("cat", "/var/log/credspec/audit.jsonl").stdout
    assert json.loads(audit.splitlines()[-1])["decision"] == "granted"


@pytest.fixture
def brokered(lab: Lab, installed: BootedSystemd) -> Iterator[Callable[[str], str]]:
    """Runs kvno in a network of its own, whose KDC is the agent; returns what it says."""
    directory = f"/run/credspec/leases/{BROKERED}"
    installed.run("mkdir", "-p", directory, "/run/test/brokered")
    installed.run("mount", "-t", "tmpfs", "lease", directory)
    # Of `exec`, as it has its own network only then.
    alone = ("-p", "Type=exec", "-p", "PrivateNetwork=yes")
    installed.run("systemd-run", "--unit=network", *alone, "sleep", "infinity")
    pid = installed.show("network.service", "MainPID")
    done = installed.run(sys.executable, "-c", SERVE, pid)
    assert done.returncode == 0, done.stderr

    def kvno(copy: str) -> str:
        installed.run("sh", "-c", f"cat {directory}/krb5cc > {directory}/{copy}")
        variables = (f"KRB5_CONFIG={directory}/krb5.conf", f"KRB5CCNAME={directory}/{copy}")
        command = ("nsenter", "-t", pid, "-n", "env", *variables, "kvno", f"ldap/{lab.dc_host}")
        shown = installed.run(*command)
        return shown.stdout + shown.stderr

    yield kvno
    installed.run(sys.executable, "-c", RELEASE)
    installed.run("umount", directory)
    installed.run("rmdir", directory)
    installed.run("systemctl", "stop", "network")


def test_containers_have_their_kdc_after_each_restart(
    installed: BootedSystemd, brokered: Callable[[str], str]
) -> None:
    """The service manager keeps the sockets, which the agent could not open again."""
    assert "kvno = " in brokered("one")
    assert installed.run("systemctl", "restart", AGENT_UNIT).returncode == 0
    assert "kvno = " in brokered("two")
    before = installed.kill(AGENT_UNIT, signal.SIGKILL)
    wait_for(lambda: installed.pid_outside(AGENT_UNIT) not in {0, before})
    wait_for(lambda: installed.show(AGENT_UNIT, "ActiveState") == "active")
    assert "kvno = " in brokered("three")
    assert installed.show(AGENT_UNIT, "NFileDescriptorStore") == "2"
    installed.run(sys.executable, "-c", RELEASE)
    wait_for(lambda: installed.show(AGENT_UNIT, "NFileDescriptorStore") == "0")


def test_it_is_started_however_often(installed: BootedSystemd) -> None:
    """By default systemd leaves a service down that was started five times in ten seconds."""
    for unit in (AGENT_UNIT, AGENT_SOCKET):
        assert installed.show(unit, "StartLimitIntervalUSec") == "0"
    for _ in range(7):
        done = installed.run("systemctl", "restart", AGENT_UNIT)
        assert done.returncode == 0, done.stderr
    assert leases(installed) == ["c1"]


@pytest.fixture
def impatient(installed: BootedSystemd) -> Iterator[BootedSystemd]:
    """The service with a watchdog that does not wait a minute, as is too short for other tests."""
    path = f"/etc/systemd/system/{AGENT_UNIT}.d/watchdog.conf"
    installed.run("tee", path, given="[Service]\nWatchdogSec=2\n")
    for command in ("daemon-reload", f"restart {AGENT_UNIT}"):
        assert installed.run("systemctl", *command.split()).returncode == 0
    yield installed
    installed.run("rm", path)
    for command in ("daemon-reload", f"restart {AGENT_UNIT}"):
        assert installed.run("systemctl", *command.split()).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
def test_it_comes_back_with_its_leases(impatient: BootedSystemd, number: signal.Signals) -> None:
    installed = impatient
    before = installed.kill(AGENT_UNIT, number)
    wait_for(lambda: installed.pid_outside(AGENT_UNIT) not in {0, before})
    wait_for(lambda: installed.show(AGENT_UNIT, "ActiveState") == "active")
    assert leases(installed) == ["c1"]


def check(booted: BootedSystemd) -> dict[str, Any]:
    """Let the doctor look at this host, and return its step on mounts."""
    shown = booted.run(
        *("env", "CREDSPEC_CONFIG=/run/test/config.toml", CREDSPEC, "check"),
        *("--docker-socket", "/run/test/none", "--output", "json"),
    )
    return next(step for step in json.loads(shown.stdout)["steps"] if step["step"] == "lease-mount")


def test_the_doctor_mounts_what_the_agent_sees(installed: BootedSystemd) -> None:
    assert check(installed)["state"] == "ok"
    listed = installed.run("ls", "/run/credspec/leases").stdout.split()
    assert listed == [LEASE]


@pytest.mark.parametrize("tree", ["/", "/run"])
def test_the_doctor_on_a_host_whose_mounts_are_private(installed: BootedSystemd, tree: str) -> None:
    """A program did that to the host; that the agent was restarted since does not help."""
    assert installed.run("mount", "--make-rprivate", tree).returncode == 0
    try:
        for command in ("true", f"systemctl restart {AGENT_UNIT}"):
            assert installed.run(*command.split()).returncode == 0
            found = check(installed)
            assert (found["state"], found["problems"][0]["code"]) == (
                "failed",
                "mounts-not-propagated",
            ), found
            remedy = found["problems"][0]["remedy"]
        # The remedy is right, and all of it is needed.
        first, second = re.findall(r"`([^`]+)`", remedy)[:2]
        assert installed.run(*first.split()).returncode == 0
        assert check(installed)["state"] == "failed"
        assert installed.run(*second.split()).returncode == 0
        assert check(installed)["state"] == "ok"
    finally:
        installed.run("mount", "--make-rshared", "/")
        installed.run("systemctl", "restart", AGENT_UNIT)


def test_callers_wait_while_it_starts(installed: BootedSystemd) -> None:
    assert installed.run("systemctl", "stop", AGENT_UNIT).returncode == 0
    assert installed.show(AGENT_SOCKET, "ActiveState") == "active"
    # Nobody but this call starts it.
    assert installed.run(sys.executable, "-c", LIST).stdout == "['c1']\n"
    assert installed.show(AGENT_UNIT, "ActiveState") == "active"


def test_whoever_waits_is_told_why_it_does_not_start(installed: BootedSystemd) -> None:
    right = installed.run("cat", "/run/test/config.toml").stdout
    installed.run("tee", "/run/test/config.toml", given=f'misspelt = "x"\n{right}')
    try:
        installed.run("systemctl", "restart", AGENT_UNIT)
        shown = installed.run(sys.executable, "-c", LIST)
        assert shown.stdout == "config-unknown-key\n", shown
    finally:
        installed.run("tee", "/run/test/config.toml", given=right)
    # It is still tried.
    wait_for(lambda: installed.show(AGENT_UNIT, "ActiveState") == "active")
    assert leases(installed) == ["c1"]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_no_signal_leaves_it_down(installed: BootedSystemd, number: signal.Signals) -> None:
    installed.kill(AGENT_UNIT, number)
    # Whether the signal ends it or not.
    assert installed.run(sys.executable, "-c", LIST).stdout == "['c1']\n"
    wait_for(lambda: installed.show(AGENT_UNIT, "SubState") == "running")


@pytest.fixture
def with_users(installed: BootedSystemd) -> Iterator[BootedSystemd]:
    """The policy names a user of /etc/passwd and one that only systemd knows."""
    path = "/etc/systemd/system/application.service"
    right = installed.run("cat", "/run/test/config.toml").stdout
    users = '[policy]\nusers = ["nobody", "credspec-app"]\n'
    installed.run("tee", path, given=APPLICATION)
    installed.run("tee", "/run/test/config.toml", given=right + users)
    try:
        for command in ("daemon-reload", "start application", f"restart {AGENT_UNIT}"):
            done = installed.run("systemctl", *command.split())
            assert done.returncode == 0, done.stderr
        yield installed
    finally:
        installed.run("tee", "/run/test/config.toml", given=right)
        installed.run("systemctl", "stop", "application")
        installed.run("systemctl", "restart", AGENT_UNIT)


def as_number(uid: int) -> list[str]:
    options = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    return ["setpriv", *options, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


def test_users_whom_the_sandbox_cannot_look_up(with_users: BootedSystemd) -> None:
    uid = int(with_users.run("id", "-u", "credspec-app").stdout)
    shown = with_users.run(*as_number(uid), sys.executable, "-c", LIST)
    # It is answered, and sees its own leases: none.
    assert shown.stdout == "[]\n", shown.stderr
    other = with_users.run(*as_number(uid + 1), sys.executable, "-c", LIST)
    assert other.stdout == "caller-not-permitted\n"


def test_a_users_lease_in_its_runtime_directory(with_users: BootedSystemd) -> None:
    """The directory is mounted when the user logs on, after the agent has started."""
    user = pwd.getpwnam("nobody")
    directory = f"/run/user/{user.pw_uid}"
    owner = f"uid={user.pw_uid},gid={user.pw_gid},mode=0700"
    with_users.run("mkdir", directory)
    with_users.run("mount", "-t", "tmpfs", "-o", owner, "run", directory)
    shown = with_users.run(
        *as_number(user.pw_uid),
        *("env", "CREDSPEC_CONFIG=/run/test/config.toml", f"XDG_RUNTIME_DIR={directory}"),
        *(CREDSPEC, "run", "--spec", "one.json", "--", "sh", "-c", "klist; echo $KRB5CCNAME"),
    )
    assert "Default principal: WebApp01$@EXAMPLE.TEST" in shown.stdout, shown.stderr
    assert f"FILE:{directory}/credspec/leases/" in shown.stdout
    with_users.run("umount", directory)
    assert leases(with_users) == ["c1"]


def test_stray_signals_end_no_service(installed: BootedSystemd) -> None:
    """For systemd an end by SIGHUP is a clean one, after which it starts nothing again."""
    before = installed.pid_outside(AGENT_UNIT)
    restarts = installed.show(AGENT_UNIT, "NRestarts")
    names = ("HUP", "QUIT", "USR1", "USR2", "PIPE", "ALRM", "PROF", "IO", "RTMIN")
    for name in names:
        number = str(int(signal.Signals[f"SIG{name}"]))
        kill = installed.run("systemctl", "kill", "--kill-who=main", "-s", number, AGENT_UNIT)
        assert kill.returncode == 0, kill.stderr
    assert leases(installed) == ["c1"]
    assert installed.pid_outside(AGENT_UNIT) == before
    assert installed.show(AGENT_UNIT, "ActiveState") == "active"
    assert installed.show(AGENT_UNIT, "NRestarts") == restarts


def test_a_reload_revokes_what_is_allowed_no_longer(installed: BootedSystemd) -> None:
    """As root does it: edit the file, systemctl reload; the service stays up meanwhile."""
    before = installed.run("cat", "/run/test/config.toml").stdout
    agent = installed.pid_outside(AGENT_UNIT)

    def reload(policy: str) -> None:
        text = before + policy
        assert installed.run("tee", "/run/test/config.toml", given=text).returncode == 0
        done = installed.run("systemctl", "reload", AGENT_UNIT)
        assert done.returncode == 0, done.stderr

    lease = "0" * 31 + "2"
    ask = PUT.replace(LEASE, lease).replace('"c1"', '"c2", "keytab": True')
    directory = f"/run/credspec/leases/{lease}"
    assert installed.run("mkdir", "-p", directory).returncode == 0
    assert installed.run("mount", "-t", "tmpfs", "lease", directory).returncode == 0
    reload('[policy]\nkeytabs = ["WebApp01"]\n')
    wait_for(lambda: installed.run(sys.executable, "-c", ask).returncode == 0)
    assert leases(installed) == ["c1", "c2"]
    reload("[policy")
    reload("")
    wait_for(lambda: leases(installed) == ["c1"])
    assert installed.run("ls", directory).stdout == ""
    assert installed.pid_outside(AGENT_UNIT) == agent
    assert installed.show(AGENT_UNIT, "ActiveState") == "active"
    assert installed.run("umount", directory).returncode == 0
    assert installed.run("rmdir", directory).returncode == 0


def events(booted: BootedSystemd, *options: str) -> tuple[str, ...]:
    command = ("env", "CREDSPEC_CONFIG=/run/test/config.toml", CREDSPEC, "events")
    return (*command, "--output", "json", *options)


def test_events_come_from_the_journal(installed: BootedSystemd) -> None:
    """A real journald, which a host has from its start and these machines have not."""
    for path, content in JOURNAL.items():
        assert installed.run("mkdir", "-p", str(Path(path).parent)).returncode == 0
        assert installed.run("tee", path, given=content).returncode == 0
    assert installed.run("systemctl", "start", "systemd-journald").returncode == 0
    assert installed.run("systemctl", "restart", AGENT_UNIT).returncode == 0
    following = subprocess.Popen(
        installed.command(*events(installed, "--follow")), stdout=subprocess.PIPE, text=True
    )
    with following:
        assert following.stdout is not None
        assert any('"agent-ready"' in line for line in following.stdout)
        refused = PUT.replace("one.json", "missing.json").replace('"c1"', '"refused"')
        assert installed.run(sys.executable, "-c", refused.replace(LEASE, "f" * 32)).returncode == 1
        line = next(line for line in following.stdout if '"lease-denied"' in line)
        following.kill()
    # Who asked is in the audit log, the whole text in the journal; it is one entry.
    entry = json.loads(line)
    assert entry["uid"] == 0
    assert entry["errors"][0] in entry["error"]
    shown = installed.run(*events(installed, "--lease", "refused", "--since", "1h"))
    assert shown.stderr == ""
    assert entry in [json.loads(each) for each in shown.stdout.splitlines()]


def test_a_service_with_the_identity(installed: BootedSystemd) -> None:
    path = "/etc/systemd/system/app.service"
    assert installed.run("tee", path, given=SERVICE).returncode == 0
    for command in (
        "install -d -o nobody /run/test/shown",
        "systemctl daemon-reload",
        "systemctl start app",
    ):
        done = installed.run(*command.split())
        assert done.returncode == 0, done.stderr
    wait_for(lambda: installed.run("test", "-s", "/run/test/shown/klist").returncode == 0)
    shown = installed.run("cat", "/run/test/shown/klist").stdout
    assert "Default principal: WebApp01$@EXAMPLE.TEST" in shown
    assert installed.run("stat", "-c", "%U", "/run/test/shown/klist").stdout == "nobody\n"
    assert len(leases(installed)) == 2
    assert installed.run("systemctl", "stop", "app").returncode == 0
    wait_for(lambda: leases(installed) == ["c1"])


@pytest.fixture
def fetchers_directory() -> Iterator[Path]:
    """Where the mount point is: the booted system shares /var with this one."""
    path = Path("/var/credentials-fetcher")
    path.mkdir()
    yield path
    shutil.rmtree(path)


def test_in_place_of_credentials_fetcher(
    installed: BootedSystemd, fetchers_directory: Path
) -> None:
    # What the service makes beside its mount shall not outlive this test.
    assert installed.run("mount", "-t", "tmpfs", "t", str(fetchers_directory)).returncode == 0
    done = installed.run(CREDSPEC, "setup", "agent", "--grpc-compat")
    assert done.returncode == 0, done.stderr
    assert leases(installed) == ["c1"]
    root = Path("/proc", str(installed.pid), "root")
    peer = PeerClient(root / "var/credentials-fetcher/socket/credentials_fetcher.sock")
    spec = installed.run("cat", "/run/test/specs/one.json").stdout
    made = peer.call("AddKerberosLease", credspec_contents=[spec])
    directory = f"/var/credentials-fetcher/krbdir/{made.lease_id}/WebApp01"
    assert list(made.created_kerberos_file_paths) == [directory]
    assert installed.run("findmnt", "-n", "-o", "FSTYPE", "-T", directory).stdout == "tmpfs\n"
    shown = installed.run("klist", f"{directory}/krb5cc").stdout
    assert "Default principal: WebApp01$@EXAMPLE.TEST" in shown
    assert installed.run("systemctl", "restart", AGENT_UNIT).returncode == 0
    assert leases(installed) == ["c1", f"{made.lease_id}/WebApp01"]
    peer.call("DeleteKerberosLease", lease_id=made.lease_id)
    peer.close()
    assert leases(installed) == ["c1"]


def test_undo_leaves_nothing_but_the_journal(installed: BootedSystemd) -> None:
    assert installed.run(CREDSPEC, "setup", "agent", "--undo").returncode == 0
    assert installed.show(AGENT_UNIT, "LoadState") == "not-found"
    assert installed.run("ls", "/run/credspec/agent.sock").returncode != 0
    assert installed.run(CREDSPEC, "setup", "agent", "--undo").stdout == "nothing to change\n"
