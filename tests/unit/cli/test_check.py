"""What ``credspec check`` prints, and for whom; the steps themselves are tested where they are."""

from __future__ import annotations

import fcntl
import os
import pty
import socket
import struct
import subprocess
import sys
import termios
from pathlib import Path

import click
import hypothesis.strategies as st
import pytest
from hypothesis import given

from credspec.cli.durations import Duration
from credspec.errors import ExitStatus

CREDSPEC = str(Path(sys.executable).with_name("credspec"))


def configuration(tmp_path: Path) -> dict[str, str]:
    path = tmp_path / "config.toml"
    path.write_text(
        f'run_directory = "{tmp_path}"\nspec_directory = "{tmp_path}/specs"\n'
        f'[host_identity]\nkeytab = "{tmp_path}/none"\n'
    )
    return {"PATH": "/usr/bin:/bin", "CREDSPEC_CONFIG": str(path), "TERM": "xterm"}


@given(st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_durations(hours: int, minutes: int, seconds: int) -> None:
    total = 3600 * hours + 60 * minutes + seconds
    for text in (f"{hours}h{minutes}m{seconds}s", f"{60 * hours + minutes}m{seconds}s", f"{total}"):
        assert Duration().convert(text, None, None) == total


@pytest.mark.parametrize("text", ["", "m", "2 m", "-1", "1d", "25h", "1.5m", "2m2h", "٣", "1e3"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(click.BadParameter, match="2m"):
        Duration().convert(text, None, None)


def test_it_waits_and_says_for_what(tmp_path: Path) -> None:
    shown = subprocess.run(
        [CREDSPEC, "check", "--wait", "1s", "--directory-only"],
        env=configuration(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == ExitStatus.NOT_PERMITTED
    assert "s left: host-identity: " in shown.stderr
    assert shown.stdout.count("FAIL  host-identity") == 1


def test_a_password_is_not_asked_again_and_again() -> None:
    shown = subprocess.run(
        [CREDSPEC, "check", "--wait", "1s", "--user", "alice@EXAMPLE.TEST"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == ExitStatus.USAGE
    assert "--keytab" in shown.stderr


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_terminal_gets_whole_words(tmp_path: Path, columns: int) -> None:
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = configuration(tmp_path) | {"NO_COLOR": "1"}
    with subprocess.Popen(
        [CREDSPEC, "check", "--directory-only"], env=environment, stdout=terminal
    ) as process:
        os.close(terminal)
        text = b""
        while True:
            try:
                text += os.read(controller, 65536)
            except OSError:
                break
        os.close(controller)
    assert process.returncode == ExitStatus.NOT_PERMITTED
    lines = text.decode().replace("\r", "").splitlines()
    assert "\x1b" not in text.decode()
    long = [line for line in lines if len(line) > columns]
    assert all(len(line.split()) <= 2 for line in long), long  # one word that fits nowhere
    assert "[host_identity] in the configuration" in " ".join(" ".join(lines).split())


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_users_who_may_open_no_socket_see_the_rest(tmp_path: Path) -> None:
    """Neither dockerd's, nor the gateway's, nor the agent's."""
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == 0 and path != Path("/") and "pytest" in str(path):
            path.chmod(0o755)
    sockets = []
    for name in ("dockerd.sock", "docker.sock", "agent.sock"):
        sockets.append(socket.socket(socket.AF_UNIX))
        sockets[-1].bind(str(tmp_path / name))
        sockets[-1].listen()
        (tmp_path / name).chmod(0o600)
    code = "from credspec.cli.check import check; "
    code += f"check(['--docker-socket', '{tmp_path}/dockerd.sock'])"
    reading = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    shown = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", *reading, sys.executable, "-c", code],
        env=configuration(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    for socket_ in sockets:
        socket_.close()
    for step in ("agent", "runtime", "gateway"):
        assert f"warn  {step}: not checked: user 65534 may not" in shown.stdout, shown
    assert "systemctl start" not in shown.stdout


def test_a_spec_elsewhere_is_pointed_out(tmp_path: Path) -> None:
    environment = configuration(tmp_path)
    (tmp_path / "my spec.json").write_text("{}")

    def said() -> str:
        return subprocess.run(
            [CREDSPEC, "check", "./my spec.json"],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        ).stderr

    assert f"install -m 0644 './my spec.json' {tmp_path}/specs/" in said()
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs/my spec.json").write_text("{}")
    assert "install" not in said()
