"""Podman of a user without privileges: by the runtime and by hooks, with the user's own leases."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from support.agent.agent_process import AgentProcess
from support.engines.rootless_engines import FIRST_ID, USER, RootlessPodman

IMAGE = "kerberos-client"
SPEC = "--annotation=credspec.dev/spec=file://one.json"
OPTIONS = ("--network=none", SPEC, "--tmpfs=/run/credspec")
DEFAULT = "Default principal: WebApp01$@EXAMPLE.TEST"

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def engine(users_agent: AgentProcess, client_image: bytes) -> Iterator[RootlessPodman]:
    running = RootlessPodman(users_agent.run_directory)
    try:
        imported = running.podman("import", "-", IMAGE, data=client_image)
        assert imported.returncode == 0, imported.stderr
        yield running
    finally:
        running.close()


@pytest.fixture(params=["runtime", "hooks"])
def run(
    request: pytest.FixtureRequest, engine: RootlessPodman, users_agent: AgentProcess
) -> Iterator[Run]:
    def call(*arguments: str) -> CompletedProcess[str]:
        if request.param == "runtime":
            return engine.podman("--runtime=credspec", *arguments)
        return engine.podman("--runtime=crun", *arguments, hooks=True)

    yield call
    engine.podman("rm", "--all", "--force", "--time", "0")
    nothing_left(engine, users_agent)


def nothing_left(engine: RootlessPodman, users_agent: AgentProcess) -> None:
    end = time.monotonic() + 60
    while (users_agent.lease_containers() or engine.host.leases()) and time.monotonic() < end:
        time.sleep(0.1)
    assert (users_agent.lease_containers(), engine.host.leases()) == ([], [])


@pytest.mark.parametrize(
    ("user", "owner"), [("0", USER.pw_uid), ("1000", FIRST_ID + 999), ("1000:1000", FIRST_ID + 999)]
)
def test_tickets_belong_to_the_mapped_user(
    run: Run, engine: RootlessPodman, user: str, owner: int
) -> None:
    name = ["--name=u1", f"--user={user}"]
    started = run("run", "-d", *OPTIONS, *name, IMAGE, "sh", "-c", "klist; sleep 600")
    assert started.returncode == 0, started.stderr
    [lease] = engine.host.leases()
    for path in (lease, lease / "krb5cc", lease / "krb5.conf"):
        assert path.stat().st_uid == owner
    end = time.monotonic() + 60
    while DEFAULT not in (shown := run("logs", "u1")).stdout and time.monotonic() < end:
        time.sleep(0.1)
    assert DEFAULT in shown.stdout, shown.stderr


@pytest.mark.parametrize("network", ["none", "host"])
def test_the_agent_is_the_kdc(run: Run, users_agent: AgentProcess, network: str) -> None:
    lab = users_agent.lab
    tickets = ("--annotation=credspec.dev/tickets=broker", f"--network={network}", SPEC)
    services = "--annotation=credspec.dev/services=ldap/*.example.test"
    line = f"kvno ldap/{lab.dc_host} && ! kvno cifs/{lab.dc_host}"
    options = ("--rm", *tickets, services, "--tmpfs=/run/credspec")
    shown = run("run", *options, IMAGE, "sh", "-c", line)
    assert shown.returncode == 0, shown.stderr
    assert "KDC policy rejects request" in shown.stderr


def test_stop_start_and_remove(run: Run, engine: RootlessPodman, users_agent: AgentProcess) -> None:
    started = run("run", "-d", "--name=s1", *OPTIONS, IMAGE, "sleep", "600")
    assert started.returncode == 0, started.stderr
    assert len(engine.host.leases()) == 1
    assert run("stop", "-t", "0", "s1").returncode == 0
    nothing_left(engine, users_agent)
    assert run("start", "s1").returncode == 0
    inside = run("exec", "-e", "KRB5CCNAME=/run/credspec/krb5cc", "s1", "klist")
    assert DEFAULT in inside.stdout, inside.stderr


def test_the_agent_starts_anew_and_the_lease_stays(
    run: Run, engine: RootlessPodman, users_agent: AgentProcess
) -> None:
    started = run("run", "-d", "--name=s1", *OPTIONS, IMAGE, "sleep", "600")
    assert started.returncode == 0, started.stderr
    before = users_agent.lease_containers()
    assert len(before) == 1
    users_agent.end(signal.SIGKILL)
    users_agent.start()
    assert users_agent.lease_containers() == before
    inside = run("exec", "-e", "KRB5CCNAME=/run/credspec/krb5cc", "s1", "klist")
    assert DEFAULT in inside.stdout, inside.stderr


def test_a_keytab(run: Run) -> None:
    keytab = "--annotation=credspec.dev/keytab=true"
    shown = run("run", "--rm", *OPTIONS, keytab, IMAGE, "klist", "-k")
    assert "HTTP/web.example.test@EXAMPLE.TEST" in shown.stdout, shown.stderr


def test_owners_that_are_not_the_users(run: Run) -> None:
    """Inside are 65537 ids: what is beyond them is nobody's."""
    owner = "--annotation=credspec.dev/owner=70000"
    shown = run("run", "--rm", *OPTIONS, owner, IMAGE, "klist")
    assert shown.returncode != 0
    assert "[container-user-unmapped]" in shown.stderr


DOCKERFILE = f"""\
FROM {IMAGE}
ENV CREDSPEC=file://one.json CREDSPEC_KEYTAB=true CREDSPEC_MODE=0644
RUN --mount=type=tmpfs,target=/run/credspec cat /run/credspec/krb5.keytab > /stolen.keytab
"""


def test_a_build_has_no_identity(
    engine: RootlessPodman, users_agent: AgentProcess, tmp_path: Path
) -> None:
    """Whatever its Dockerfile says, and with a tmpfs, which that may ask for."""
    before = users_agent.audit_log.read_text().count('"granted"')
    for words in (("--runtime=credspec", "build"), ("build", "--runtime=credspec")):
        shown = engine.podman(
            *words, "--network=none", "-t", "stolen", "-", data=DOCKERFILE.encode()
        )
        if "unknown flag" in shown.stderr:
            continue  # of newer versions
        assert shown.returncode != 0
        assert "[spec-in-build]" in shown.stdout + shown.stderr
    assert users_agent.audit_log.read_text().count('"granted"') == before
    assert engine.host.leases() == []


@pytest.mark.parametrize("option", ["mode=0644", "keytab=true", "owner=0"])
def test_an_images_annotation_is_no_option(
    run: Run, engine: RootlessPodman, users_agent: AgentProcess, option: str
) -> None:
    build = ("build", "--quiet", f"--annotation=credspec.dev/{option}", "-t", "hostile", "-")
    built = engine.podman(*build, data=f"FROM {IMAGE}\n".encode())
    assert built.returncode == 0, built.stderr
    line = "stat -c '%a %u' /run/credspec/krb5cc && ls /run/credspec"
    shown = run("run", "--rm", *OPTIONS, "hostile", "sh", "-c", line)
    if shown.returncode != 0:
        assert "[option-unconfirmed]" in shown.stderr
    else:  # Podman 5 hands annotations of images on to nobody
        mode, *names = shown.stdout.splitlines()
        assert mode == "600 0"
        assert "krb5.keytab" not in names


def test_a_refusal_is_shown_with_its_reason(run: Run) -> None:
    wanted = [o.replace("one.json", "nothing.json") for o in OPTIONS]
    shown = run("run", "--rm", *wanted, IMAGE, "klist")
    assert shown.returncode != 0
    assert "nothing.json" in shown.stderr


def test_a_user_whom_the_policy_does_not_name(
    run: Run, users_agent: AgentProcess, engine: RootlessPodman
) -> None:
    allowed = users_agent.config.read_text()
    users_agent.end()
    users_agent.config.write_text(allowed.replace('users = ["nobody"]', 'users = ["daemon"]'))
    users_agent.start()
    try:
        shown = run("run", "--rm", *OPTIONS, IMAGE, "klist")
        assert shown.returncode != 0
        assert "[caller-not-permitted]" in shown.stderr
    finally:
        users_agent.end()
        users_agent.config.write_text(allowed)
        users_agent.start()


def test_what_the_container_puts_there_is_not_followed(
    run: Run, engine: RootlessPodman, users_agent: AgentProcess
) -> None:
    """Its root is the user itself: whatever it does, others' files stay as they are."""
    attack = "cd /run/credspec; rm -f krb5cc; ln -s /etc/passwd krb5cc; sleep 600"
    run("run", "-d", "--name=s1", *OPTIONS, IMAGE, "sh", "-c", attack)
    [lease] = engine.host.leases()
    end = time.monotonic() + 60
    while not (lease / "krb5cc").is_symlink() and time.monotonic() < end:
        time.sleep(0.05)
    before = Path("/etc/passwd").stat()
    users_agent.end(signal.SIGKILL)
    users_agent.start()  # it looks at every lease it had
    run("rm", "--force", "--time", "0", "s1")
    nothing_left(engine, users_agent)
    after = Path("/etc/passwd").stat()
    assert (after.st_uid, after.st_mtime_ns, after.st_size) == (
        before.st_uid,
        before.st_mtime_ns,
        before.st_size,
    )
