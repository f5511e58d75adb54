"""Identity and options come from the user, whatever the carrier; tickets are the container's."""

from __future__ import annotations

import grp
import json
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

IMAGE = "kerberos-client"
OPTION = '--security-opt "credentialspec=file://WebApp01.json"'
BY_HAND = "-e CREDSPEC=file://WebApp01.json --tmpfs /run/credspec"
RUNTIMES = {"runc": "credspec", "crun": "credspec-crun"}
SHOW = "sh -c 'stat -c \"%a %u %g\" /run/credspec/krb5cc; ls /run/credspec'"
PLAIN = "600 0 0\nkrb5.conf\nkrb5cc\n"
OPTIONS = ("CREDSPEC_MODE=0666", "CREDSPEC_KEYTAB=true", "CREDSPEC_OWNER=1000:1000")
LABELS = ("credspec.dev/mode=0666", "credspec.dev/keytab=true", "credspec.dev/owner=1000:1000")


def grants(host: Any) -> int:
    """How many leases were granted up to now."""
    log = host.config.audit_log
    lines = log.read_text().splitlines() if log.exists() else []
    return sum(json.loads(line).get("decision") == "granted" for line in lines)


def import_image(host: Any, name: str, *changes: str) -> None:
    options = [word for change in changes for word in ("-c", change)]
    host.engine.docker("import", *options, "-", name, data=host.image)


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    return RUNTIMES[request.param]


@pytest.fixture(scope="module")
def hostile(host: Any) -> str:
    """An image that asks for all there is."""
    labels = [f"LABEL {label}" for label in (*LABELS, "credspec.dev/spec=file://WebApp02.json")]
    import_image(host, "hostile-options", *(f"ENV {option}" for option in OPTIONS), *labels)
    return "hostile-options"


@pytest.mark.parametrize("option", OPTIONS)
def test_an_images_variable_is_no_option(host: Any, runtime: str, option: str) -> None:
    import_image(host, "hostile-option", f"ENV {option}")
    before = grants(host)
    shown = host.shell(f"docker run --rm --runtime {runtime} {BY_HAND} hostile-option {SHOW}")
    assert shown.returncode == 125
    assert "[option-unconfirmed]" in shown.stderr
    assert f"-e {option.partition('=')[0]}=" in shown.stderr
    assert grants(host) == before
    # What the error says to do.
    without = f"-e {option.partition('=')[0]}="
    shown = host.shell(
        f"docker run --rm --runtime {runtime} {BY_HAND} {without} hostile-option {SHOW}"
    )
    assert shown.stdout == PLAIN, shown.stderr


def test_nor_is_the_users_own_variable_which_looks_the_same(host: Any, runtime: str) -> None:
    shown = host.shell(
        f"docker run --rm --runtime {runtime} {BY_HAND} -e CREDSPEC_MODE=0440 {IMAGE} {SHOW}"
    )
    assert "[option-unconfirmed]" in shown.stderr
    assert "--tmpfs /run/credspec/mode=VALUE" in shown.stderr


def test_an_option_that_a_tmpfs_names_is_the_users(host: Any, runtime: str) -> None:
    options = "--tmpfs /run/credspec/mode=0440 --tmpfs /run/credspec/keytab=true "
    options += "--mount type=tmpfs,dst=/run/credspec/owner=7:8"
    shown = host.shell(f"docker run --rm --runtime {runtime} {BY_HAND} {options} {IMAGE} {SHOW}")
    assert shown.stdout == "440 7 8\nkrb5.conf\nkrb5.keytab\nkrb5cc\nrcache\n", shown.stderr
    mounts = f"docker run --rm --runtime {runtime} {BY_HAND} {options} {IMAGE} cat /proc/mounts"
    assert "/run/credspec/mode" not in host.shell(mounts).stdout


def test_the_gateway_makes_the_image_say_nothing(host: Any, hostile: str) -> None:
    shown = host.shell(f"docker run --rm {OPTION} {hostile} {SHOW}")
    assert shown.stdout == PLAIN, shown.stderr
    labels = "--label credspec.dev/mode=0440 --label credspec.dev/owner=7:8"
    shown = host.shell(f"docker run --rm {OPTION} {labels} {hostile} {SHOW}")
    assert shown.stdout == "440 7 8\nkrb5.conf\nkrb5cc\n", shown.stderr


@pytest.mark.parametrize(
    "words",
    [
        "--label Credspec.dev/mode=0440",
        "--label credspec.dev/modes=0440",
        "--label credspec.dev%2Fmode=0440",
        "--label credspec.dev/spec=file://WebApp02.json",
        "-e credspec_mode=0440",
        "-e CREDSPEC_MODE=0440",
        "-e CREDSPEC-KEYTAB=true",
    ],
)
def test_at_the_gateway_a_name_is_right_or_refused(host: Any, words: str) -> None:
    shown = host.shell(f"docker run --rm {OPTION} {words} {IMAGE} true")
    assert shown.returncode == 125
    assert "[docker-" in shown.stderr


@pytest.mark.parametrize("name", ["credspec", "Credspec", "CREDSPEC.", "CRED_SPEC"])
def test_without_the_gateway_too(host: Any, name: str) -> None:
    shown = host.shell(
        f"docker run --rm --runtime credspec -e {name}=file://WebApp01.json "
        f"--tmpfs /run/credspec {IMAGE} true"
    )
    assert shown.returncode == 125
    assert "[carrier-misspelt]" in shown.stderr
    assert "did you mean CREDSPEC?" in shown.stderr


DOCKERFILE = """\
FROM kerberos-client
ENV CREDSPEC=file://WebApp01.json CREDSPEC_KEYTAB=true CREDSPEC_MODE=0644
LABEL credspec.dev/spec=file://WebApp01.json
VOLUME /run/credspec
{run}
"""
STEAL = "cat /run/credspec/krb5cc > /stolen; cat /run/credspec/krb5.keytab >> /stolen; ls /run"


@pytest.fixture
def shim_as_default(host: Any) -> Iterator[None]:
    """A dockerd whose every container is the shim's."""
    before = host.engine.daemon_config.read_text()
    document = json.loads(before) | {"default-runtime": "credspec"}
    host.engine.halt()
    host.engine.daemon_config.write_text(json.dumps(document))
    host.engine.start()
    try:
        yield
    finally:
        host.engine.halt()
        host.engine.daemon_config.write_text(before)
        host.engine.start()


@pytest.mark.parametrize("builder", ["0", "1"], ids=["classic", "BuildKit"])
def test_a_build_has_no_identity(
    host: Any, shim_as_default: None, tmp_path: Path, builder: str
) -> None:
    mount = "--mount=type=tmpfs,target=/run/credspec " if builder == "1" else ""
    (tmp_path / "Dockerfile").write_text(DOCKERFILE.format(run=f"RUN {mount}sh -c '{STEAL}'"))
    before = grants(host)
    # The distribution's client brings BuildKit's own.
    client = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"
    shown = host.shell(
        f"DOCKER_BUILDKIT={builder} {client} build --network none -t stolen {tmp_path}"
    )
    said = shown.stdout + shown.stderr
    if builder == "0":
        assert shown.returncode != 0
        assert "[spec-carrier-unconfirmed]" in said
    else:
        # dockerd's own BuildKit runs runc itself: the program finds nothing to take.
        assert "krb5cc" in said
        size = "stat -c %s /stolen"
        found = host.shell(f"docker run --rm --runtime runc -e CREDSPEC= stolen {size}")
        assert found.stdout == "0\n", said + found.stderr
    assert grants(host) == before
    assert host.mounts() == []


@pytest.mark.parametrize("direct", [False, True])
def test_a_committed_image_has_no_spec(host: Any, direct: bool) -> None:
    """Before API 1.43 the spec is in a variable, which dockerd itself copies to the image."""
    host.shell(f"docker run -d {OPTION} --name c1 {IMAGE} sleep 600")
    try:
        commit = "docker commit"
        if direct:
            change = " ".join(
                f"--change 'ENV {name}='"
                for name in ("CREDSPEC", *(option.partition("=")[0] for option in OPTIONS))
            )
            commit = f"docker -H unix://{host.engine.socket} commit {change}"
        assert host.shell(f"{commit} c1 committed").returncode == 0
        env = json.loads(host.engine.docker("image", "inspect", "committed").stdout)[0]["Config"]
        kept = [entry for entry in env["Env"] if entry.startswith("CREDSPEC")]
        assert not [entry for entry in kept if entry.partition("=")[2]], kept
        # No ticket is in the image, whatever is said.
        inside = host.shell("docker run --rm committed ls -A /run/credspec")
        assert inside.stdout == "", inside.stderr
        if not direct:
            ran = host.shell("docker run --rm --network none --runtime credspec committed env")
            assert ran.returncode == 0, ran.stderr
            assert "KRB5" not in ran.stdout
    finally:
        host.shell("docker rm -f c1")


def test_a_second_container_of_a_running_ones_id(host: Any) -> None:
    """The runtime refuses it, and the first one keeps its tickets."""
    host.shell(f"docker run -d {OPTION} --name first {IMAGE} sleep 600")
    try:
        container = host.inspect("first")["Id"]
        launcher = host.engine.directory / "libexec" / "credspec-runtime"
        root = next(host.engine.directory.glob("exec/**/moby/*/")).parent
        state = next(p for p in host.engine.directory.glob(f"exec/**/{container}") if p.is_dir())
        roots = [p.parent for p in host.engine.directory.glob(f"exec/runtime-runc/**/{container}")]
        root = roots[0] if roots else state.parent
        bundle = next(
            p.parent for p in host.engine.directory.glob(f"exec/**/{container}/config.json")
        )
        before, grants_before = host.mounts(), grants(host)
        for command in ("create", "run"):
            copy = host.engine.directory / "copy"
            copy.mkdir()
            document = json.loads((bundle / "config.json").read_text())
            # As an engine would write it again.
            document["annotations"] = {"credspec.dev/spec": "file://WebApp02.json"}
            (copy / "config.json").write_text(json.dumps(document))
            shown = host.shell(
                f"timeout 60 {launcher} --root {root} {command} --bundle {copy} {container}"
            )
            shutil.rmtree(copy)
            assert shown.returncode != 0
            assert "exist" in shown.stderr
        assert (host.mounts(), grants(host)) == (before, grants_before)
        assert host.leases() == [container]
        assert "WebApp01$" in host.shell("docker exec first klist").stdout
    finally:
        host.shell("docker rm -f first")


def test_tickets_are_not_swapped_out(host: Any) -> None:
    host.shell(f"docker run -d {OPTION} --name n1 {IMAGE} sleep 600")
    try:
        [mount] = host.mounts()
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        [options] = [line.split()[-1] for line in lines if line.split()[4] == mount]
        assert "noswap" in options.split(",")
    finally:
        host.shell("docker rm -f n1")


# Whoever else of the host: by no number, by the files' owner's, by their group's.
@pytest.mark.parametrize("who", ["other", "owner", "group"])
@pytest.mark.parametrize("mode", ["0644", "0640", "0600"])
def test_no_user_of_the_host_reaches_a_containers_tickets(host: Any, who: str, mode: str) -> None:
    games, users = pwd.getpwnam("games"), grp.getgrnam("users")
    owner = {"other": "0:0", "owner": f"{games.pw_uid}:0", "group": f"0:{users.gr_gid}"}[who]
    options = f"--label credspec.dev/mode={mode} --label credspec.dev/owner={owner}"
    host.shell(f"docker run -d {OPTION} {options} --name h1 {IMAGE} sleep 600")
    try:
        [mount] = host.mounts()
        assert host.config.leases_directory.stat().st_mode & 0o777 == 0o700
        files = {f"{mount}/krb5cc"}
        lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        [device] = {line[2] for line in lines if line[4] == mount}
        files |= {f"{line[4]}/krb5cc" for line in lines if line[2] == device}
        pid = host.inspect("h1")["State"]["Pid"]
        files.add(f"/proc/{pid}/root/run/credspec/krb5cc")
        files.add(f"/proc/{pid}/cwd/run/credspec/krb5cc")
        assert Path(f"/proc/{pid}/root/run/credspec/krb5cc").exists(), "root sees it there"
        read = ["setpriv", f"--reuid={games.pw_uid}", f"--regid={games.pw_gid}"]
        read += [f"--groups={users.gr_gid}", "--bounding-set=-all", "cat"]
        for path in files:
            got = subprocess.run([*read, path], capture_output=True, check=False)
            assert got.returncode != 0, path
            assert got.stdout == b""
            assert b"ermission denied" in got.stderr
        # The container itself is none the worse.
        assert "WebApp01$" in host.shell("docker exec h1 klist").stdout
        assert os.stat(mount).st_uid == int(owner.partition(":")[0])  # noqa: PTH116 - a mount
    finally:
        host.shell("docker rm -f h1")
