from __future__ import annotations

import json
from pathlib import Path

import pytest

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


def test_one_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    found = provider(tmp_path, f"sleep 300 & echo $! >{tmp_path}/child; wait", 1.2)
    with pytest.raises(CredspecError, match="host-account-timeout"):
        found.host_account("x")
    child = Path("/proc", (tmp_path / "child").read_text().strip(), "stat")
    # Killed, and perhaps not yet reaped by whoever adopted it.
    assert not child.exists() or child.read_text().split()[2] in "ZX"


def test_a_program_that_others_can_write(tmp_path: Path) -> None:
    found = provider(tmp_path, "exit 0")
    (tmp_path / "program").chmod(0o777)
    with pytest.raises(CredspecError, match="host-account-program"):
        found.host_account("x")
    for command in (["program"], [], [str(tmp_path / "none")]):
        with pytest.raises(CredspecError, match="host-account-program"):
            ProgramProvider("corp", {"command": command}, 1).host_account("x")


def test_it_leaves_no_descriptor(tmp_path: Path) -> None:
    found = provider(tmp_path, f"echo '{ANSWER}'")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        found.host_account("x")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
