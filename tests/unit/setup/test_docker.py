from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import hypothesis
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from credspec.contract.ticket_options import ANNOTATIONS, VARIABLES
from credspec.errors import UsageError
from credspec.setup import launcher as shim_launcher
from credspec.setup.docker import DockerSetup
from credspec.shim.runtime import Invocation
from support.specs.spellings import spellings


@pytest.fixture
def setup(tmp_path: Path) -> DockerSetup:
    return DockerSetup(
        run_directory=tmp_path / "run",
        gateway_socket=tmp_path / "run/docker.sock",
        daemon_config=tmp_path / "etc/daemon.json",
        launcher_directory=tmp_path / "libexec",
        context=None,
    )


def files(setup: DockerSetup) -> dict[str, bytes]:
    root = setup.run_directory.parent
    found = (path for path in root.rglob("*") if path.is_file() and "bin" not in path.parts)
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


def given(setup: DockerSetup, text: bytes) -> None:
    setup.daemon_config.parent.mkdir(exist_ok=True)
    setup.daemon_config.write_bytes(text)


def document(setup: DockerSetup) -> object:
    return json.loads(setup.daemon_config.read_text())


def test_what_dockerd_reads_is_absolute(
    setup: DockerSetup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would look for a relative path from a directory of its own."""
    monkeypatch.chdir(tmp_path)
    plan = replace(setup, launcher_directory=Path("lib"), run_directory=Path("run"))
    plan.apply()
    path = f"{tmp_path}/lib/credspec-runtime"
    assert document(plan) == {"runtimes": {"credspec": {"path": path}}}
    text = Path(path).read_text()
    assert f"run_directory={str(tmp_path / 'run')!r}" in text
    assert f"[ -w {tmp_path}/run/leases ]" in text
    # Undone from elsewhere, by the whole path.
    monkeypatch.chdir("/")
    replace(plan, launcher_directory=tmp_path / "lib").undo()
    assert files(setup) == {}


def test_without_a_configuration_one_is_made_and_removed_again(setup: DockerSetup) -> None:
    assert len(setup.apply()) == 2
    assert document(setup) == {"runtimes": {"credspec": {"path": str(setup.launcher)}}}
    assert os.access(setup.launcher, os.X_OK)
    assert len(setup.undo()) == 2
    assert files(setup) == {}
    assert not setup.launcher_directory.exists()


@pytest.mark.parametrize(
    "original",
    [
        b"{}",
        b"",
        b" \n",
        b'{"log-level":"info","x-unknown":[1,2.50],\t"runtimes":{}}',
        b'{"runtimes": {"nvidia": {"path": "/n", "runtimeArgs": []}}, "a": "\xc3\xa9"}\r\n',
        b'\xef\xbb\xbf{"debug": true}',
        b'{"default-runtime": "nvidia", "runtimes": null}',
    ],
)
@pytest.mark.parametrize("set_as_default", [False, True])
def test_undo_restores_every_byte(
    setup: DockerSetup, original: bytes, set_as_default: bool
) -> None:
    given(setup, original)
    plan = replace(setup, set_as_default=set_as_default)
    plan.apply()
    assert document(plan)["runtimes"]["credspec"] == {"path": str(plan.launcher)}  # type: ignore[index]
    plan.undo()
    assert files(plan) == {"etc/daemon.json": original}


def test_both_ways_may_be_repeated(setup: DockerSetup) -> None:
    given(setup, b'{"debug":true}')
    setup.apply()
    before = files(setup)
    assert setup.apply() == []
    assert files(setup) == before
    setup.undo()
    assert setup.undo() == []
    assert files(setup) == {"etc/daemon.json": b'{"debug":true}'}


def test_the_default_set_later_is_taken_back_too(setup: DockerSetup) -> None:
    original = b'{"default-runtime":"crun","runtimes":{"crun":{"path":"crun"}}}'
    given(setup, original)
    setup.apply()
    assert len(replace(setup, set_as_default=True).apply()) == 1
    assert document(setup)["default-runtime"] == "credspec"  # type: ignore[index]
    setup.undo()
    assert files(setup) == {"etc/daemon.json": original}


def test_changes_of_others_stay(setup: DockerSetup) -> None:
    given(setup, b'{"debug": true}')
    setup.apply()
    changed = document(setup) | {"mtu": 1400}  # type: ignore[operator]
    setup.daemon_config.write_text(json.dumps(changed))
    setup.undo()
    assert document(setup) == {"debug": True, "mtu": 1400}


def test_keys_keep_their_order_and_the_file_its_mode(setup: DockerSetup) -> None:
    given(setup, b'{"z": 1, "runtimes": {"y": {}}, "a": 2}')
    setup.daemon_config.chmod(0o640)
    setup.apply()
    assert list(document(setup)) == ["z", "runtimes", "a"]  # type: ignore[call-overload]
    assert setup.daemon_config.stat().st_mode & 0o777 == 0o640


def test_a_link_stays_a_link(setup: DockerSetup, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "real.json").write_text("{}")
    setup.daemon_config.symlink_to("../real.json")
    setup.apply()
    assert setup.daemon_config.is_symlink()
    assert "credspec" in (tmp_path / "real.json").read_text()


@pytest.mark.parametrize("bad", [b"{", b"[]", b"\xff", b'{"runtimes": []}', b"[" * 100_000])
def test_a_broken_configuration_is_left_alone(setup: DockerSetup, bad: bytes) -> None:
    given(setup, bad)
    for action in (setup.apply, setup.undo):
        with pytest.raises(UsageError, match="daemon-config-not-json"):
            action()
    assert files(setup) == {"etc/daemon.json": bad}


def test_another_runtime_of_that_name_is_left_alone_unless_forced(setup: DockerSetup) -> None:
    original = b'{"runtimes":{"credspec":{"path":"/other"}}}'
    given(setup, original)
    with pytest.raises(UsageError, match="daemon-config-runtime"):
        setup.apply()
    assert files(setup) == {"etc/daemon.json": original}, "nothing half-made"
    replace(setup, force=True).apply()
    setup.undo()
    assert files(setup) == {"etc/daemon.json": original}


def test_a_dry_run_says_the_same_and_does_nothing(setup: DockerSetup) -> None:
    given(setup, b"{}")
    said = setup.apply(dry_run=True)
    assert files(setup) == {"etc/daemon.json": b"{}"}
    assert setup.apply() == said
    before = files(setup)
    said = setup.undo(dry_run=True)
    assert files(setup) == before
    assert setup.undo() == said


CLIENT = """#!/bin/sh
echo "$@" >> {log}
[ "$2" = inspect ] || exit 0
[ -n "{endpoint}" ] || exit 1
echo '[{{"Endpoints": {{"docker": {{"Host": "{endpoint}"}}}}}}]'
"""


def client(directory: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    (directory / "bin").mkdir(exist_ok=True)
    log, program = directory / "bin/log", directory / "bin/docker"
    program.write_text(CLIENT.format(log=log, endpoint=endpoint))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return log


def test_the_context_is_made_and_removed(
    setup: DockerSetup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = replace(setup, context="credspec")
    log = client(tmp_path, "", monkeypatch)
    plan.apply()
    assert f"context create credspec --docker host=unix://{plan.gateway_socket}" in log.read_text()
    client(tmp_path, f"unix://{plan.gateway_socket}", monkeypatch)
    assert plan.apply() == []
    plan.undo()
    assert "context rm --force credspec" in log.read_text()


def test_a_context_of_somebody_else_is_left_alone(
    setup: DockerSetup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = replace(setup, context="credspec")
    log = client(tmp_path, "ssh://elsewhere", monkeypatch)
    with pytest.raises(UsageError, match="docker-context-taken"):
        plan.apply()
    assert plan.undo() == []
    assert "rm" not in log.read_text()
    assert files(setup) == {}


def test_no_docker_client_is_said_and_no_obstacle(
    setup: DockerSetup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    changes = replace(setup, context="credspec").apply()
    assert "no docker client" in changes[-1]
    assert setup.launcher.exists()


@pytest.fixture
def launcher(tmp_path: Path) -> Path:
    """A launcher whose runtime tells how it was called."""
    runtime = tmp_path / "my runtime"
    runtime.write_text('#!/bin/sh\necho "ran $#: $*"\n')
    runtime.chmod(0o755)
    launcher = tmp_path / "credspec-runtime"
    launcher.write_text(shim_launcher.launcher_text(tmp_path, [str(runtime)]))
    launcher.chmod(0o755)
    return launcher


def output(*command: str | Path) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout + result.stderr


@pytest.mark.parametrize(
    "arguments",
    [["list"], ["create", "--bundle", "/nowhere", "x"], ["delete", "x"], ["exec", "x", "run"], []],
)
def test_the_launcher_runs_the_runtime(launcher: Path, arguments: list[str]) -> None:
    given = " ".join(arguments)
    assert output(launcher, *arguments) == f"ran {len(arguments)}: {given}\n"


def starts_python(tmp_path: Path, launcher: Path, arguments: list[str]) -> bool:
    """Run a launcher, and tell which of the two it came to."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "python $1 $(($# - 2)): $*"\n')
    python.chmod(0o755)
    launcher.write_text(launcher.read_text().replace(f"exec {sys.executable} ", f"exec {python} "))
    printed, number, given = output(launcher, *arguments), len(arguments), " ".join(arguments)
    assert printed in {
        f"ran {number}: {given}\n",
        f"python -IS {number}: -IS {launcher} {given}\n",
    }
    return printed.startswith("python")


@pytest.mark.parametrize(
    "arguments",
    [
        ["create", "x"],
        ["--root", "/x", "--log", "/y", "run", "x"],
        ["delete", "--force", "x"],
        ["create", "delete"],
        ["checkpoint", "x"],
        ["restore", "x"],
        ["exec", "x", "run"],
    ],
)
def test_where_the_shim_may_have_a_part_python_starts(
    tmp_path: Path, launcher: Path, arguments: list[str]
) -> None:
    assert starts_python(tmp_path, launcher, arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["exec", "x", "sh", "-c", "a; delete"],
        ["start", "x"],
        ["kill", "x", "15"],
        ["state", "$(touch /nowhere)"],
        ["state", "`exit 7`", "*", "a  b", "-n"],
        ["--version"],
    ],
)
def test_elsewhere_it_does_not(tmp_path: Path, launcher: Path, arguments: list[str]) -> None:
    assert not starts_python(tmp_path, launcher, arguments)


@pytest.mark.parametrize(
    ("config", "is_shims"),
    [
        (b'{"process": {"env": ["A=b"]}}', False),
        (b"", False),
        (b"\0\xff\n\0", False),
        (b'{"annotations": {"credspec.dev/spec": "x"}}', True),
        (b'{"annotations": {"credspecXdev/spec": "x"}}', False),
        (b'\0\xff\n{"env": ["CREDSPEC=x"]}', True),
        (b'{"windows": {"credentialSpec": {}}}', True),
        (b'{"mounts": [{"source": "/var/lib/credspec-dev/x", "type": "bind"}]}', False),
        (b'{"process": {"args": ["credspec", "--config=/etc/credspec.dev/x"]}}', False),
        (b'{"process": {"env": ["A=credspec.dev/spec", "URL=http://a/%20b"]}}', False),
        ('{"process": {"env": ["NAME=\u00e4\\u00e4"]}}'.encode(), False),
        (b'{"annotations" : {"CredSpec.Dev/spec" : "x"}}', True),
        (b'{"process": {"env": ["KRB5CCNAME=FILE:/run/credspec/krb5cc"]}}', True),
        (b'{"mounts": [{"destination": "/run/credspec", "type": "tmpfs"}]}', True),
    ],
)
@pytest.mark.parametrize("option", ["--bundle", "-b"])
def test_creation_is_the_shims_if_the_bundle_has_a_mark_of_a_spec(
    tmp_path: Path, launcher: Path, config: bytes, is_shims: bool, option: str
) -> None:
    (tmp_path / "-e a bundle").mkdir()
    (tmp_path / "-e a bundle/config.json").write_bytes(config)
    bundle = str(tmp_path / "-e a bundle")
    arguments = ["--root", "/x", "create", option, bundle, "--pid-file", "/y", "x"]
    assert starts_python(tmp_path, launcher, arguments) == is_shims
    # Any other way to name the bundle is left to Python, and so is one that cannot be read.
    assert starts_python(tmp_path, launcher, ["create", f"{option}={bundle}", "x"])
    assert starts_python(tmp_path, launcher, ["create", option, f"{bundle}/none", "x"])
    assert starts_python(tmp_path, launcher, ["create", option, bundle, "run"])


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@hypothesis.given(st.sampled_from([*ANNOTATIONS, *VARIABLES]).flatmap(spellings), st.booleans())
def test_creation_is_the_shims_whatever_the_spelling(
    tmp_path: Path, launcher: Path, name: str, ascii_only: bool
) -> None:
    document: dict[str, object] = {"annotations": {name: "x"}}
    if name.isidentifier() or "/" not in name:
        document = {"process": {"env": ["A=b", f"{name}=x"]}}
    text = json.dumps(document, ensure_ascii=ascii_only)
    (tmp_path / "config.json").write_text(text)
    assert starts_python(tmp_path, launcher, ["create", "--bundle", str(tmp_path), "x"])


@pytest.mark.parametrize("options", [[], ["--force"]])
@pytest.mark.parametrize("root", ["/run/docker/r c", "/run/x///", "relative/root"])
def test_deletion_needs_no_python_whether_the_container_has_a_lease_or_not(
    tmp_path: Path,
    launcher: Path,
    root: str,
    options: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = ["--root", root, "--log", "/log", "delete", *options, "c-1.a_B"]
    assert starts_python(tmp_path, launcher, arguments), "where leases are is not known yet"
    (tmp_path / "leases").mkdir()
    assert not starts_python(tmp_path, launcher, arguments)
    lease = tmp_path / "leases" / Invocation(arguments).lease_id("runc")
    lease.mkdir()
    assert not starts_python(tmp_path, launcher, [*arguments[:-1], "another"])
    assert lease.exists()
    assert not starts_python(tmp_path, launcher, arguments)
    assert not lease.exists()
    lease.mkdir()
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "b2sum").symlink_to("/usr/bin/b2sum")
    monkeypatch.setenv("PATH", str(tools))
    assert starts_python(tmp_path, launcher, arguments), "there is no umount"


@pytest.mark.parametrize(
    "arguments",
    [
        ["delete", "x"],
        ["--root=/r", "delete", "x"],
        ["-root", "/r", "delete", "x"],
        ["delete", "--root", "/r", "x"],
        ["--root", "/r", "delete", "x", "--force"],
        ["--root", "/r", "delete", "a/b"],
        ["--root", "/r", "delete", "a\nb"],
        ["--root", "/r", "delete", "ä"],
        ["--root", "/", "delete", "x"],
    ],
)
def test_any_other_deletion_is_left_to_python(
    tmp_path: Path, launcher: Path, arguments: list[str]
) -> None:
    (tmp_path / "leases").mkdir()
    assert starts_python(tmp_path, launcher, arguments)


def test_what_a_launcher_says_without_a_runtime(tmp_path: Path, launcher: Path) -> None:
    (tmp_path / "my runtime").unlink()
    assert "[runtime-missing]" in output(launcher, "state", "x")


@pytest.mark.parametrize("path", ["/opt/my python/bin/python", "/" + "x" * 260, ""])
def test_interpreters_that_no_shebang_can_name(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", path)
    with pytest.raises(UsageError, match="launcher-interpreter"):
        shim_launcher.launcher_text(Path("/run/credspec"))


def test_dockerd_is_reloaded_for_a_change_of_its_file_only(setup: DockerSetup) -> None:
    assert setup.reload_command([f"a line in {setup.daemon_config}"]) == ""
    assert setup.reload_command(setup.apply()) == "systemctl reload docker"
    assert setup.reload_command(setup.apply()) == ""
    setup.launcher.write_text("another")
    assert setup.reload_command(setup.apply()) == ""
