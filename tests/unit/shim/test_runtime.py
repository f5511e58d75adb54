from __future__ import annotations

import errno
import json
import posix
import subprocess
import sys
from pathlib import Path

import pytest

from credspec.contract import lease as lease_module
from credspec.contract.errors import ShimError
from credspec.contract.host_paths import leases_directory, unprivileged_uid
from credspec.contract.ticket_options import TicketRequest
from credspec.shim.runtime import Invocation

BUNDLE = "/run/bundle"


def invocation(line: str) -> Invocation:
    return Invocation(line.split())


@pytest.mark.parametrize(
    "line",
    [
        "--root /run/r --log l.json --log-format json create --bundle /run/bundle --pid-file p c1",
        "--root=/run/r --log=l.json create --bundle=/run/bundle c1",
        "-root /run/r --systemd-cgroup create -bundle /run/bundle --no-pivot c1",
        "--root /run/r create -b /run/bundle --preserve-fds 3 --console-socket s c1",
        "--debug --root /run/r create c1 --bundle /run/bundle",
    ],
)
def test_create_lines_of_engines(line: str) -> None:
    found = invocation(line)
    assert (found.command, found.container, found.bundle) == ("create", "c1", BUNDLE)
    assert found.state_directory("/usr/sbin/runc") == "/run/r/c1"


@pytest.mark.parametrize("command", ["create", "run", "restore"])
@pytest.mark.parametrize(
    "option",
    ["-b", "--bundle", "--console-socket", "--pid-file", "--pidfd-socket", "--preserve-fds",
     "--config", "-f", "-pid-file", "-preserve-fds"],
)  # fmt: skip
def test_options_whose_value_is_no_container(command: str, option: str) -> None:
    found = invocation(f"--root /r {command} c1 {option} value")
    assert (found.command, found.container) == (command, "c1")
    assert invocation(f"{command} {option}=value c1").container == "c1"


@pytest.mark.parametrize(
    "option",
    ["--root", "--log", "--log-format", "--log-level", "--criu", "--rootless", "--cgroup-manager"],
)
def test_options_before_the_command_whose_value_is_no_command(option: str) -> None:
    for dashes in (option, option[1:]):
        assert invocation(f"{dashes} value delete c1").command == "delete"
        assert invocation(f"{dashes}=value delete c1").command == "delete"


def test_options_of_one_dash_or_two_are_the_same() -> None:
    assert invocation("-root /r create c1").options == {"--root": "/r"}
    # Those that are nobody's stay as they are.
    assert invocation("-x create -d c1").options == {"-x": "", "-d": ""}


def test_a_value_named_create_is_no_command() -> None:
    found = invocation("--root create --log create delete --force create")
    assert (found.command, found.container) == ("delete", "create")


def test_force_of_delete_takes_no_value() -> None:
    assert invocation("delete -f c1").container == "c1"


def test_default_state_directory_and_bundle() -> None:
    found = invocation("create c1")
    assert found.state_directory("/usr/bin/crun") == "/run/crun/c1"
    assert found.bundle == str(Path.cwd())


@pytest.mark.parametrize("line", ["", "--version", "list", "--root /x", "-"])
def test_lines_without_a_container(line: str) -> None:
    assert invocation(line).container == ""


def test_lease_ids_are_stable_safe_and_differ_by_root() -> None:
    one = invocation("--root /run/r create c1").lease_id("runc")
    # Of containers that live through an upgrade: it must be the same in every version.
    assert one == "ae71c068bb1880545bede2964184df52"
    assert one == invocation("--root /run/r/ delete c1").lease_id("runc")
    assert one != invocation("--root /run/q create c1").lease_id("runc")
    nasty = invocation("--root /run/r create ../../../etc").lease_id("runc")
    assert len(nasty) == 32
    assert set(nasty) <= set("0123456789abcdef")


PASSES_THROUGH = f"""
import sys
sys.path.append({str(Path(__file__).parents[3] / "src")!r})
from credspec.shim.runtime import main
before = set(sys.modules)
sys.argv[1:] = {{arguments!r}}
main(runtimes=[{{runtime!r}}], run_directory={{run!r}})
"""


def run_shim(tmp_path: Path, *arguments: str, status: int = 7) -> subprocess.CompletedProcess[str]:
    runtime = tmp_path / "runtime"
    runtime.write_text(
        f"#!/bin/sh\necho \"$@\"\ntrap '' TERM\ngrep SigIgn /proc/self/status\nexit {status}\n"
    )
    runtime.chmod(0o755)
    code = PASSES_THROUGH.format(
        arguments=list(arguments), runtime=str(runtime), run=str(tmp_path / "run")
    )
    return subprocess.run(
        [sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=False
    )


def test_everything_else_goes_straight_through(tmp_path: Path) -> None:
    result = run_shim(tmp_path, "--root", "/x", "exec", "--tty", "c1", "sh", "-c", "a b")
    assert result.returncode == 7
    assert result.stdout.startswith("--root /x exec --tty c1 sh -c a b\n")
    ignored = int(result.stdout.split("SigIgn:")[1], 16)
    assert not ignored & (1 << 12), "SIGPIPE must not be ignored in a container"


def test_a_bundle_without_a_spec_is_not_touched(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"process": {"env": ["A=1"]}}')
    before = config.stat()
    assert run_shim(tmp_path, "create", "--bundle", str(tmp_path), "c1").returncode == 7
    assert config.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.root  # it mounts a tmpfs
def test_no_agent_means_no_container_and_a_reason_in_the_runtimes_log(tmp_path: Path) -> None:
    (tmp_path / "run/leases").mkdir(parents=True)
    (tmp_path / "config.json").write_text('{"annotations": {"credspec.dev/spec": "file://a.json"}}')
    log = tmp_path / "log.json"
    result = run_shim(tmp_path, "--log", str(log), "create", "--bundle", str(tmp_path), "c1")
    assert result.returncode == 1
    assert "agent-unreachable" in log.read_text()
    assert '"level": "error"' in log.read_text()
    assert "Traceback" not in result.stderr
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == ["config.json", "log.json", "run", "runtime"]
    assert list((tmp_path / "run/leases").iterdir()) == []


WITH_SPEC = {"annotations": {"credspec.dev/spec": "file://a.json"}}


def write_config(tmp_path: Path, document: object) -> None:
    (tmp_path / "config.json").write_text(json.dumps(document))


@pytest.mark.parametrize("command", ["create", "run"])
def test_an_id_that_is_in_use_is_the_runtimes_to_refuse(tmp_path: Path, command: str) -> None:
    """Its lease is that of the container which has the id."""
    write_config(tmp_path, WITH_SPEC)
    (tmp_path / "root" / "c1").mkdir(parents=True)
    lease = Invocation(["--root", f"{tmp_path}/root", command, "c1"]).lease_id("runtime")
    (tmp_path / "run" / "leases" / lease / "krb5cc").mkdir(parents=True)
    line = ("--root", f"{tmp_path}/root", command, "--bundle", str(tmp_path), "c1")
    result = run_shim(tmp_path, *line)
    assert result.returncode == 7
    assert result.stdout.startswith(" ".join(line))
    assert (tmp_path / "run" / "leases" / lease / "krb5cc").exists()
    # One that makes the container all the same makes one without tickets: not without a word.
    result = run_shim(tmp_path, *line, status=0)
    assert (result.returncode, "[container-exists]" in result.stderr) == (1, True)


@pytest.mark.parametrize("command", ["checkpoint", "pause", "state"])
@pytest.mark.parametrize("has_lease", [True, False])
def test_nothing_but_a_checkpoint_of_tickets_is_refused(
    tmp_path: Path, command: str, *, has_lease: bool
) -> None:
    line = ("--root", f"{tmp_path}/root", command, "c1")
    if has_lease:
        # The state's directory is the runtime's root and the container, whatever the runtime.
        (tmp_path / "run" / "leases" / Invocation(line).lease_id("runtime")).mkdir(parents=True)
    result = run_shim(tmp_path, *line)
    is_refused = has_lease and command == "checkpoint"
    assert result.returncode == (1 if is_refused else 7)
    assert ("[checkpoint-refused]" in result.stderr) == is_refused


def test_a_container_that_had_tickets_is_not_restored(tmp_path: Path) -> None:
    leases = tmp_path / "run" / "leases"
    leases.mkdir(parents=True)
    had = {"mounts": [{"destination": "/run/credspec", "source": f"{leases}/{'0' * 32}"}]}
    for document in (WITH_SPEC, had, {"annotations": {"Credspec.dev/spec": "file://a.json"}}):
        write_config(tmp_path, document)
        result = run_shim(tmp_path, "restore", "--bundle", str(tmp_path), "c1")
        assert result.returncode == 1
        assert "[checkpoint-refused]" in result.stderr or "[carrier-misspelt]" in result.stderr
    # Others are, also if there is something in their configuration that might be ours.
    write_config(tmp_path, {"process": {"env": ["A%20=\u00e4", "B=credspec"]}, "mounts": []})
    assert run_shim(tmp_path, "restore", "--bundle", str(tmp_path), "c1").returncode == 7


@pytest.mark.parametrize(
    "document", [b"{", b'{"annotations": {"credspec.dev/spec": "a"}} x', b'"credspec \xff"']
)
def test_a_bundle_that_may_have_a_spec_but_cannot_be_read_is_refused(
    tmp_path: Path, document: bytes
) -> None:
    """A runtime might read it, and start the container without its identity."""
    (tmp_path / "config.json").write_bytes(document)
    result = run_shim(tmp_path, "create", "--bundle", str(tmp_path), "c1")
    if b"credspec" not in document:
        assert result.returncode == 7
        return
    assert result.returncode == 1
    assert "[bundle-malformed]" in result.stderr


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EPERM])
def test_a_kernel_without_noswap_simulated(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """What Linux answers before 6.4, and to root of a user namespace."""
    asked: list[bytes] = []

    def mount(*arguments: object) -> None:
        asked.append(bytes(arguments[4]))  # type: ignore[call-overload]
        if b"noswap" in asked[-1]:
            raise OSError(number, "")

    monkeypatch.setattr(lease_module.c_library, "mount", mount)
    monkeypatch.setattr(lease_module.posix, "mkdir", lambda *_: None)
    removed: list[str] = []
    monkeypatch.setattr(lease_module.posix, "rmdir", removed.append)
    request = TicketRequest("file://a.json", 5, 6, 0o600, keytab=False)
    if number == errno.EINVAL:
        lease_module._mount_tmpfs("/nowhere", request)
        assert [b"noswap" in options for options in asked] == [True, False]
        assert asked[0].removesuffix(b",noswap") == asked[1]
    else:
        with pytest.raises(ShimError, match="cannot mount a tmpfs"):
            lease_module._mount_tmpfs("/nowhere", request)
    assert removed == (["/nowhere"] if number == errno.EPERM else [])


def test_no_runtime_at_all() -> None:
    code = (
        f"import sys; sys.path.append({str(Path(__file__).parents[3] / 'src')!r})\n"
        "from credspec.shim.runtime import main\nsys.argv[1:]=['list']\nmain(runtimes=['/nope'])"
    )
    result = subprocess.run(
        [sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=False
    )
    assert (result.returncode, "runtime-missing" in result.stderr) == (1, True)


def test_the_common_path_imports_next_to_nothing() -> None:
    """Startup cost is counted in modules here, since seconds depend on the machine."""
    code = (
        f"import sys; sys.path.append({str(Path(__file__).parents[3] / 'src')!r})\n"
        "before = set(sys.modules)\n"
        "import credspec.shim.runtime\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    result = subprocess.run(
        [sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=True
    )
    names = ("contract", "contract.errors", "contract.host_paths", "contract.names")
    names += ("shim", "shim.runtime")
    assert result.stdout.split() == ["credspec", *(f"credspec.{name}" for name in names)]


def test_a_container_with_a_spec_takes_no_package_that_is_slow_to_import() -> None:
    code = (
        f"import sys; sys.path.append({str(Path(__file__).parents[3] / 'src')!r})\n"
        "from credspec.shim import container_lease, carriers, image_root, oci_bundle\n"
        "from credspec.contract import spelling\n"
        "print(*sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=True
    )
    slow = {"os", "re", "enum", "json", "socket", "ctypes", "struct", "typing", "collections"}
    assert slow.isdisjoint(result.stdout.split())


@pytest.mark.parametrize(
    ("uid_map", "euid", "expected"),
    [
        ("         0          0 4294967295\n", 0, None),
        ("         0          0 4294967295\n", 1000, 1000),
        ("         0       1000          1\n         1     200000      65536\n", 0, 1000),
        ("      1000       1000          1\n", 1000, 1000),
    ],
)
def test_on_whose_behalf(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    uid_map: str,
    euid: int,
    expected: int | None,
) -> None:
    (tmp_path / "uid_map").write_text(uid_map)
    real = posix.open
    monkeypatch.setattr("posix.open", lambda _, flags: real(tmp_path / "uid_map", flags))
    monkeypatch.setattr("posix.geteuid", lambda: euid)
    assert unprivileged_uid() == expected
    users = f"/run/user/{expected}/credspec/leases"
    absent = str(tmp_path / "absent")
    assert leases_directory(absent) == (users if expected else f"{absent}/leases")
    # Whoever can write the agent's directory uses that.
    (tmp_path / "leases").mkdir()
    assert leases_directory(str(tmp_path)) == f"{tmp_path}/leases"


@pytest.mark.parametrize(
    ("name", "users", "of_user", "user", "expected"),
    [
        ("runc", "", None, b"root", "/run/runc/c1"),
        ("runc", "/run/user/0", None, b"x", "/run/runc/c1"),
        ("crun", "", None, b"root", "/run/crun/c1"),
        ("crun", "/run/user/0", None, b"root", "/run/user/0/crun/c1"),
        # Root of a user's namespace.
        ("runc", "/run/user/7", 7, b"x", "/run/user/7/runc/c1"),
        ("runc", "/run/user/7", 7, b"root", "/run/runc/c1"),
        ("runc", "", 7, b"x", "/run/runc/c1"),
    ],
)
def test_where_root_runtimes_keep_their_containers(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    users: str,
    of_user: int | None,
    *,
    user: bytes,
    expected: str,
) -> None:
    monkeypatch.setattr("posix.environ", {b"XDG_RUNTIME_DIR": users.encode(), b"USER": user})
    monkeypatch.setattr("posix.geteuid", lambda: 0)
    monkeypatch.setattr("credspec.shim.runtime.unprivileged_uid", lambda: of_user)
    assert invocation("create c1").state_directory(f"/usr/bin/{name}") == expected
