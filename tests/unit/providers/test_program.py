from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from credspec.errors import CredspecError
from credspec.providers.program import ProgramProvider

ANSWER = json.dumps({"username": "reader", "password": "p", "domainName": "contoso.com"})


def provider(tmp_path: Path, script: str, seconds: float = 10) -> ProgramProvider:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    return ProgramProvider("corp", {"command": [str(program)]}, seconds)


def test_it_gets_the_input_and_a_clean_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_AGENT", "x")
    found = provider(tmp_path, f"env >{tmp_path}/env; cat >{tmp_path}/input; echo '{ANSWER}'")
    assert found.host_account('say "hello"').user == "reader"
    question = json.loads((tmp_path / "input").read_text())
    assert question == {"version": 1, "input": 'say "hello"'}
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert names <= {"PATH", "LANG", "PWD", "OLDPWD", "SHLVL", "_"}


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 0", "host-account-answer"),
        ("echo not json", "host-account-answer"),
        ("head -c 10485760 /dev/zero", "host-account-answer"),
        ('echo \'{"error": "no such secret"}\'', "no such secret.*host-account-refused"),
        ("kill -9 $$", "host-account-answer"),
    ],
)
def test_answers_that_are_none(tmp_path: Path, script: str, code: str) -> None:
    with pytest.raises(CredspecError, match=code):
        provider(tmp_path, script).host_account("x" * 16384)


WAIT = "while [ ! -s {pid} ]; do sleep 0.01; done"
SLEEPER = "setsid sh -c 'echo $$ >{pid}; exec sleep 300'"
# Each writes the number of a process that would outlive the program.
CHILDREN = {
    "child": "sleep 300 & echo $! >{pid}",
    "own session": f"{SLEEPER} & {WAIT}",
    "daemon": f"({SLEEPER} &) ; {WAIT}",
    "daemon of a daemon": f"(setsid sh {{script}} &) ; {WAIT}",
    "without output": f"({SLEEPER} </dev/null >/dev/null &) ; {WAIT}",
}


def script_of(tmp_path: Path, child: str) -> str:
    places = {"pid": tmp_path / "pid", "script": tmp_path / "script"}
    (tmp_path / "script").write_text(f"({SLEEPER} &)".format(**places))
    return child.format(**places)


def has_ended(tmp_path: Path) -> bool:
    pid = (tmp_path / "pid").read_text().strip()
    return bool(pid) and not Path("/proc", pid).exists()


@pytest.mark.parametrize("child", CHILDREN.values(), ids=CHILDREN)
def test_one_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path, child: str) -> None:
    found = provider(tmp_path, f"{script_of(tmp_path, child)}; sleep 300", 2)
    with pytest.raises(CredspecError, match="host-account-timeout"):
        found.host_account("x")
    assert has_ended(tmp_path)


@pytest.mark.parametrize("child", CHILDREN.values(), ids=CHILDREN)
def test_what_it_leaves_behind_is_killed_and_its_answer_counts(tmp_path: Path, child: str) -> None:
    found = provider(tmp_path, f"{script_of(tmp_path, child)}; echo '{ANSWER}'", 60)
    assert found.host_account("x").user == "reader"
    assert has_ended(tmp_path)


def test_it_ends_with_the_agent(tmp_path: Path) -> None:
    provider(tmp_path, f"setsid sh -c 'echo $$ >{tmp_path}/pid; exec sleep 300' & sleep 300")
    code = (
        "from credspec.providers.program import ProgramProvider as P;"
        f"P('corp', {{'command': ['{tmp_path}/program']}}, 60).host_account('x')"
    )
    agent = subprocess.Popen([sys.executable, "-c", code])
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.01)
    agent.kill()
    agent.wait()
    while not has_ended(tmp_path):
        time.sleep(0.01)


def test_a_program_that_others_can_write_or_replace(tmp_path: Path) -> None:
    found = provider(tmp_path, f"echo '{ANSWER}'")
    program = tmp_path / "program"
    assert found.host_account("x").user == "reader"
    for mode in (0o777, 0o722, 0o702, 0o720, 0o600):
        program.chmod(mode)
        with pytest.raises(CredspecError, match="host-account-program"):
            found.host_account("x")
    program.chmod(0o700)
    for mode in (0o777, 0o770, 0o707):
        tmp_path.chmod(mode)
        with pytest.raises(CredspecError, match="host-account-program"):
            found.host_account("x")
    tmp_path.chmod(0o700)
    if os.geteuid() == 0:
        os.chown(program, 1, 1)
        with pytest.raises(CredspecError, match="host-account-program"):
            found.host_account("x")
        os.chown(program, 0, 0)
    assert found.host_account("x").user == "reader"


def test_a_program_by_a_link_or_that_is_none(tmp_path: Path) -> None:
    provider(tmp_path, f"echo '{ANSWER}'")
    (tmp_path / "link").symlink_to("program")
    (tmp_path / "folder").symlink_to(".")
    (tmp_path / "text").write_text("no program")
    (tmp_path / "text").chmod(0o700)
    commands = [
        ["program"],
        [],
        *([str(tmp_path / name)] for name in ("none", "link", ".", "text")),
    ]
    for command in (*commands, [str(tmp_path / "folder/program")]):
        with pytest.raises(CredspecError, match="host-account-program"):
            ProgramProvider("corp", {"command": command}, 10).host_account("x")


@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=12, max_size=200))
def test_an_input_is_never_an_argument(tmp_path: Path, given: str) -> None:
    script = f"cat /proc/$$/cmdline /proc/$PPID/cmdline >{tmp_path}/arguments"
    script += f"; cat >{tmp_path}/input; echo '{ANSWER}'"
    provider(tmp_path, script).host_account(given)
    assert json.loads((tmp_path / "input").read_text())["input"] == given
    assert given.encode() not in (tmp_path / "arguments").read_bytes()


def test_it_leaves_no_descriptor(tmp_path: Path) -> None:
    found = provider(tmp_path, f"echo '{ANSWER}'")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        found.host_account("x")
    # What other tests have left in other threads may open one meanwhile, but not with each call.
    assert len(list(Path("/proc/self/fd").iterdir())) < before + 5
