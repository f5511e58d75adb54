"""`credspec run` with a real agent and domain: as root, as root for another user, as that user."""

from __future__ import annotations

import os
import pwd
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from credspec.lab.domain import Lab
from credspec.run.supervised_program import PASSED_ON
from support.agent.agent_process import BIN, AgentProcess, as_user, open_to_users

USER = pwd.getpwnam("nobody")
RUNTIME_DIRECTORY = Path("/run/user") / str(USER.pw_uid)
ANOTHER = pwd.getpwnam("daemon")


@pytest.fixture(scope="module")
def agent(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    directory = tmp_path_factory.mktemp("run")
    open_to_users(directory)  # others than root must reach the socket
    extra = '[policy]\nusers = ["nobody", "daemon"]\nkeytabs = ["*"]\n'
    running = AgentProcess(lab, directory, extra=extra)
    try:
        with runtime_directory(USER):
            running.start()
            yield running
    finally:
        running.close()


@contextmanager
def runtime_directory(user: pwd.struct_passwd) -> Iterator[None]:
    """What a logon makes for a user."""
    directory = Path("/run/user") / str(user.pw_uid)
    directory.mkdir(parents=True, exist_ok=True)
    owner = f"uid={user.pw_uid},gid={user.pw_gid},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", owner, "run", directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", directory], check=True)
        directory.rmdir()


@pytest.fixture(autouse=True)
def nothing_left(agent: AgentProcess) -> Iterator[None]:
    yield
    assert agent.lease_containers() == []
    names = ("leases", "process-leases")
    for leases in (
        *(agent.run_directory / n for n in names),
        RUNTIME_DIRECTORY / "credspec/leases",
    ):
        assert not leases.exists() or list(leases.iterdir()) == []


def environment(agent: AgentProcess) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in {"KRB5_CONFIG", "KRB5CCNAME"}}
    return kept | {"CREDSPEC_CONFIG": str(agent.config)}


def run(
    agent: AgentProcess, *arguments: str, user: str | None = None
) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "credspec"), "run", *arguments]
    return subprocess.run(
        as_user(user, command) if user else command,
        env=environment(agent),
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        timeout=60,
    )


def test_a_program_has_tickets_and_its_own_exit_status(agent: AgentProcess) -> None:
    shown = run(agent, "--spec", "one.json", "--", "sh", "-c", "klist; cat $KRB5_CONFIG; exit 7")
    assert "Default principal: WebApp01$@EXAMPLE.TEST" in shown.stdout
    assert "[libdefaults]" in shown.stdout
    assert shown.returncode == 7


@pytest.mark.parametrize("user", [None, "nobody"])
def test_a_program_with_tickets_of_services_has_no_tgt(
    agent: AgentProcess, lab: Lab, user: str | None
) -> None:
    services = (f"ldap/{lab.dc_host}", "postgres/db.example.test")
    options = [*("--spec", "one", "--tickets", "services")]
    options += [word for service in services for word in ("--service", service)]
    line = f"klist; kvno -q {services[0]} && kvno cifs/{lab.dc_host} || echo refused"
    shown = run(agent, *options, "--", "sh", "-c", line, user=user)
    assert "Default principal: WebApp01$@EXAMPLE.TEST" in shown.stdout, shown.stderr
    assert all(f"{service}@{lab.realm}" in shown.stdout for service in services)
    assert "krbtgt" not in shown.stdout
    assert shown.stdout.endswith("refused\n")


def test_variables_are_bare_paths_and_krb5_conf_names_the_cache_too(agent: AgentProcess) -> None:
    line = "echo $KRB5CCNAME $KRB5_CONFIG; env -u KRB5CCNAME klist"
    shown = run(agent, "--spec", "one", "--", "sh", "-c", line)
    cache, conf = shown.stdout.splitlines()[0].split()
    assert (cache[0], conf[0], ":" in cache + conf) == ("/", "/", False)
    assert f"Ticket cache: FILE:{cache}" in shown.stdout, shown.stderr


def test_the_callers_own_cache_is_replaced_and_its_krb5_conf_stays(agent: AgentProcess) -> None:
    users = {"KRB5CCNAME": "KEYRING:persistent:0", "KRB5_CONFIG": "/mine"}
    shown = subprocess.run(
        [str(BIN / "credspec"), "run", "--spec", "one", "--", "env"],
        env=environment(agent) | users,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        timeout=60,
    )
    lines = shown.stdout.splitlines()
    assert "KRB5_CONFIG=/mine" in lines, shown.stderr
    assert not any(line.startswith("KRB5CCNAME=KEYRING") for line in lines)
    assert any(line.startswith("KRB5CCNAME=/") for line in lines)


@pytest.mark.parametrize("spec", ["one", "one.json", "file://one.json", "PATH"])
def test_forms_of_the_spec(agent: AgentProcess, spec: str) -> None:
    if spec == "PATH":
        spec = str(agent.directory / "specs/one.json")
    assert run(agent, "--spec", spec, "--", "klist", "-s").returncode == 0


def test_a_document_elsewhere_needs_the_policys_leave(agent: AgentProcess, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text((agent.directory / "specs/one.json").read_text())
    shown = run(agent, "--spec", str(path), "--", "klist", "-s")
    assert (shown.returncode, "policy-spec-source" in shown.stderr) == (5, True)


def test_another_user_and_a_keytab(agent: AgentProcess) -> None:
    lines = ("id -u", "klist -s && echo fresh", "klist -k | grep -c WebApp01")
    command = "; ".join([*lines, 'stat -c "%a %u" $KRB5_KTNAME'])
    options = ["--spec", "one", "--user", "nobody", "--keytab", "--mode", "0440"]
    shown = run(agent, *options, "--", "sh", "-c", command)
    assert shown.stdout.split("\n")[:2] == [str(USER.pw_uid), "fresh"], shown.stderr
    assert shown.stdout.strip().endswith(f"440 {USER.pw_uid}")


def test_tickets_are_not_swapped_out(agent: AgentProcess) -> None:
    command = "directory=$KRB5CCNAME; grep ${directory%/krb5cc} /proc/self/mountinfo"
    shown = run(agent, "--spec", "one", "--", "sh", "-c", command)
    assert "noswap" in shown.stdout.split()[-1].split(","), shown.stdout + shown.stderr


def test_only_root_enters_the_directory_of_containers_leases(agent: AgentProcess) -> None:
    modes = {n: (agent.run_directory / n).stat().st_mode for n in ("leases", "process-leases")}
    assert {name: mode & 0o777 for name, mode in modes.items()} == {
        "leases": 0o700,
        "process-leases": 0o711,
    }


def test_a_program_of_an_earlier_version_keeps_its_tickets(agent: AgentProcess) -> None:
    """It was started when processes' leases were among those of containers, in 0711."""
    leases = agent.run_directory / "leases"
    directory, lock = agent.lease_directory(1), agent.lease_directory(1).with_suffix(".lock")
    leases.chmod(0o711)
    agent.mount(1)
    directory.chmod(0o711)
    with subprocess.Popen(["flock", str(lock), "sleep", "600"], process_group=0) as program:
        end = time.monotonic() + 60
        taken = ["flock", "--nonblock", "--conflict-exit-code=7", str(lock), "true"]
        while not lock.exists() or subprocess.run(taken, check=False).returncode != 7:
            assert time.monotonic() < end
        body = {"spec": "file://one.json", "container": "old", "runtime_state": str(lock)}
        body |= {"uid": USER.pw_uid, "gid": USER.pw_gid}
        agent.client.request("PUT", f"/v1/leases/{1:032x}", body)
        agent.end()
        agent.start()
        assert agent.lease_containers() == ["old"]
        ids = [f"--reuid={USER.pw_uid}", f"--regid={USER.pw_gid}", "--clear-groups"]
        klist = ["setpriv", *ids, "klist", "-c", f"FILE:{directory}/krb5cc"]
        assert subprocess.run(klist, check=False, capture_output=True).returncode == 0
        os.killpg(program.pid, signal.SIGKILL)
    # What flock ran has the lock, too.
    end = time.monotonic() + 60
    while subprocess.run(taken, check=False).returncode == 7:
        assert time.monotonic() < end
    agent.end()
    agent.start()
    assert agent.lease_containers() == []
    assert leases.stat().st_mode & 0o777 == 0o700
    agent.unmount(1)
    lock.unlink()


INHERITED = """
import os, sys
for name in sorted(os.listdir('/proc/self/fd'), key=int):
    fd = int(name)
    try:
        target = os.readlink(f'/proc/self/fd/{fd}')
    except OSError:
        continue  # that of the listing
    if fd > 2 and not target.startswith('/proc/'):
        flags = [l.split()[1] for l in open(f'/proc/self/fdinfo/{fd}') if l.startswith('flags')][0]
        writable = int(flags, 8) & os.O_ACCMODE != os.O_RDONLY
        try:
            os.close(os.open(f'/proc/self/fd/{fd}', os.O_WRONLY))
            writable = True
        except PermissionError:
            pass
        print(os.path.basename(target).endswith('.lock'), writable)
"""


def test_a_program_inherits_nothing_of_the_host_that_it_could_write(agent: AgentProcess) -> None:
    """The lock is a file in the host's memory: a program that could write it could fill that."""
    shown = run(
        agent, "--spec", "one", "--user", "nobody", "--", "/usr/bin/python3", "-c", INHERITED
    )
    assert shown.stdout == "True False\n", shown.stderr


def test_an_unprivileged_user_by_itself(agent: AgentProcess) -> None:
    shown = run(agent, "--spec", "one", "--", "sh", "-c", "klist; echo $KRB5CCNAME", user="nobody")
    assert "Default principal: WebApp01$@EXAMPLE.TEST" in shown.stdout, shown.stderr
    assert f"FILE:{RUNTIME_DIRECTORY}/credspec/leases/" in shown.stdout


def test_a_user_without_a_runtime_directory(agent: AgentProcess) -> None:
    shown = run(agent, "--spec", "one", "--", "true", user="daemon")
    assert (shown.returncode, "user-directory" in shown.stderr) == (1, True)
    assert "loginctl enable-linger" in shown.stderr


def test_a_user_whom_the_policy_does_not_name(agent: AgentProcess) -> None:
    with runtime_directory(pwd.getpwnam("games")):
        shown = run(agent, "--spec", "one", "--", "true", user="games")
        assert not list(Path(f"/run/user/{pwd.getpwnam('games').pw_uid}").glob("credspec/leases/*"))
    assert shown.returncode not in {0, 1}
    assert "[caller-not-permitted]" in shown.stderr
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["--spec", "one", "--", "no-such-program"], 127, "program-not-started"),
        (["--spec", "one", "--", "/etc/passwd"], 126, "program-not-started"),
        (["--spec", "nope", "--", "true"], 1, "spec-not-found"),
        (["--spec", "one", "--mode", "0777", "--", "true"], 2, "option-invalid"),
        (["--spec", "one", "--user", "no-such-user", "--", "true"], 2, "user-unknown"),
        (["--spec", "one"], 2, "Missing argument"),
        (["--spec", "one", "--tickets", "services", "--", "true"], 2, "tickets-options"),
        (["--spec", "one", "--service", "HTTP/a", "--", "true"], 2, "tickets-options"),
    ],
)
def test_mistakes(agent: AgentProcess, arguments: list[str], status: int, text: str) -> None:
    shown = run(agent, *arguments)
    assert (shown.returncode, text in shown.stderr) == (status, True), shown.stderr


@contextmanager
def started(agent: AgentProcess, line: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    command = [str(BIN / "credspec"), "run", "--spec", "one", "--", "sh", "-c", line]
    with subprocess.Popen(
        command, env=environment(agent), stdout=subprocess.PIPE, text=True, **options
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        yield process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_reach_the_program(agent: AgentProcess, number: signal.Signals) -> None:
    line = "trap 'exit 9' TERM INT HUP; echo started; while :; do sleep 0.1; done"
    with started(agent, line) as process:
        assert agent.lease_containers() == [f"sh[{process.pid}]"]
        process.send_signal(number)
        assert process.wait(60) == 9


# `credspec run` itself, which gets a signal when its program runs and it does not know of it yet.
IN_BETWEEN = """
import os, subprocess, sys
from credspec.run import supervised_program
number = int(sys.argv.pop(1))
class Popen(subprocess.Popen):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        os.kill(os.getpid(), number)
supervised_program.subprocess.Popen = Popen
sys.argv[0] = "credspec"
from credspec.cli.start import main
main()
"""


@pytest.mark.parametrize("number", sorted(PASSED_ON))
def test_a_signal_in_the_moment_in_which_it_starts(
    agent: AgentProcess, number: signal.Signals, tmp_path: Path
) -> None:
    mark = tmp_path / "pid"
    line = f"echo $$ > {mark}; exec sleep 300"
    shown = subprocess.run(
        [
            *(sys.executable, "-c", IN_BETWEEN, str(int(number))),
            *("run", "--spec", "one", "--", "sh", "-c", line),
        ],
        env=environment(agent),
        check=False,
        timeout=60,
    )
    assert shown.returncode == 128 + number
    if mark.exists() and (pid := mark.read_text().strip()):
        assert not Path("/proc", pid).exists()


@pytest.mark.parametrize("seed", range(10))
def test_signals_at_random_moments(agent: AgentProcess, seed: int, tmp_path: Path) -> None:
    """Nothing is left, see the fixture, and the program does not outlive its lease."""
    chance = random.Random(seed)
    number = chance.choice(sorted(PASSED_ON))
    mark = tmp_path / "pid"
    line = f"echo $$ > {mark}; exec sleep 300"
    command = [str(BIN / "credspec"), "run", "--spec", "one", "--", "sh", "-c", line]
    with subprocess.Popen(command, env=environment(agent)) as process:
        time.sleep(chance.random() * 1.5)
        process.send_signal(number)
        # Python's own start ends as every program does.
        assert process.wait(60) in {128 + number, -number}
    if mark.exists() and (pid := mark.read_text().strip()):
        assert not Path("/proc", pid).exists()


def test_an_end_by_a_signal_is_told_as_shells_do(agent: AgentProcess) -> None:
    with started(agent, "echo started; kill -9 $$") as process:
        assert process.wait(60) == 128 + 9


def test_a_lease_lasts_as_long_as_the_program_even_without_its_parent(agent: AgentProcess) -> None:
    line = "echo started; exec sleep 60 >/dev/null"
    with started(agent, line, start_new_session=True) as process:
        check_orphan(agent, process)


def check_orphan(agent: AgentProcess, process: subprocess.Popen[str]) -> None:
    lease = agent.client.get("/v1/leases")["leases"][0]
    directory = agent.run_directory / "process-leases" / lease["lease_id"]
    process.kill()
    process.wait()
    agent.end(signal.SIGKILL)
    agent.start()
    # The program lives: its lease is adopted.
    assert agent.lease_containers() == [lease["container"]]
    os.killpg(process.pid, signal.SIGKILL)
    end = time.monotonic() + 60
    while subprocess.run(["pgrep", "-g", str(process.pid)], check=False).returncode == 0:
        assert time.monotonic() < end
    agent.end(signal.SIGKILL)
    agent.start()
    assert agent.lease_containers() == []
    assert list(directory.iterdir()) == []
    # What the parent would have removed.
    subprocess.run(["umount", directory], check=True)
    directory.rmdir()
    directory.with_name(f"{directory.name}.lock").unlink()


@contextmanager
def waiting_run(agent: AgentProcess, *options: str) -> Iterator[subprocess.Popen[str]]:
    """`credspec run`, which waits for an agent that has ended."""
    command = [str(BIN / "credspec"), "run", *options, "--wait", "200", "--spec", "one", "--"]
    agent.end()
    try:
        with subprocess.Popen(
            [*command, "klist"],
            env=environment(agent),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr is not None
            assert "waiting for up to 200 s: " in process.stderr.readline()
            yield process
    finally:
        if agent.process is None or agent.process.poll() is not None:
            agent.start()


def test_it_waits_for_an_agent_that_starts_later(agent: AgentProcess) -> None:
    with waiting_run(agent) as process:
        agent.start()
        shown, said = process.communicate(timeout=250)
    assert process.returncode == 0, said
    assert "WebApp01$@EXAMPLE.TEST" in shown


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait_and_nothing_is_left(agent: AgentProcess, number: int) -> None:
    with waiting_run(agent) as process:
        process.send_signal(number)
        assert process.wait(60) == 128 + number


def test_a_domain_that_stays_away_is_told_with_the_time(agent: AgentProcess, lab: Lab) -> None:
    agent.end()
    lab.stop_dc()
    agent.start()
    try:
        shown = run(agent, "--wait", "20", "--spec", "one", "--", "true")
    finally:
        lab.start_dc()
    assert shown.returncode == 4
    first, last = shown.stderr.splitlines()[0], shown.stderr.splitlines()[-1]
    assert first.startswith("credspec: waiting for up to 20 s: ")
    assert "; waited for " in last
    assert "unreachable]" in last
