"""What ``credspec events`` prints of logs that are there."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from credspec.cli.events import Since, events


def ago(minutes: int) -> datetime:
    return datetime.now(UTC) - timedelta(minutes=minutes)


def audited(minutes: int, **fields: object) -> str:
    moment = ago(minutes).isoformat(timespec="milliseconds")
    entry = {"time": moment, "event": "lease-granted", "event_id": 120, "uid": 0, "pid": 1}
    return json.dumps({**entry, **fields}) + "\n"


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "config.toml").write_text(f'audit_log = "{tmp_path}/audit.jsonl"\n')
    monkeypatch.setenv("CREDSPEC_CONFIG", str(tmp_path / "config.toml"))
    grant = {"lease": "ab" * 16, "container": "c1\x1b[2J", "domain": "d.test", "accounts": ["Web"]}
    lines = [audited(3000, container="old"), audited(9, **grant), "no entry\n"]
    (tmp_path / "audit.jsonl").write_text("".join(lines))
    moment = f"{ago(3):%Y-%m-%dT%H:%M:%S.%fZ}"
    (tmp_path / "agent.log").write_text(
        "Traceback of another program\n"
        f"timestamp='{moment}' level='warning' event='refresh-failed' event_id=8 "
        "error='it\\'s down [x]' identity='web@d.test'\n"
    )
    return tmp_path


def run(logs: Path, *arguments: str, **more: str) -> Result:
    log = [] if "--log" in arguments else ["--log", str(logs / "agent.log")]
    return CliRunner().invoke(events, [*arguments, *log], **more)  # type: ignore[arg-type]


def test_both_logs_are_one_list_of_the_last_day(logs: Path) -> None:
    shown = run(logs)
    assert shown.exit_code == 0
    first, second = shown.stdout.splitlines()
    assert first[21:] == "lease-granted         web@d.test  container c1?[2J  by user 0 (process 1)"
    assert second[21:] == "refresh-failed        web@d.test  it's down [x]"
    assert "1 lines of" in shown.stderr


def test_nothing_found_is_said_beside_the_output(logs: Path) -> None:
    shown = run(logs, "--account", "Nobody", "--since", "2h")
    assert (shown.exit_code, shown.stdout) == (0, "")
    moment = f"{ago(120).astimezone():%Y-%m-%d}"
    assert shown.stderr.startswith(f"credspec events: there is nothing of this since {moment}")


@pytest.mark.parametrize("text", ["yesterday", "30"])
def test_what_is_no_moment_is_refused_with_examples(logs: Path, text: str) -> None:
    shown = run(logs, "--since", text)
    assert shown.exit_code == 2
    assert f"'{text}' is no moment; expected an age such as 2h" in shown.stderr


def test_json_is_a_line_for_each(logs: Path) -> None:
    found = [json.loads(line) for line in run(logs, "--output", "json").stdout.splitlines()]
    assert [(each["source"], each["level"]) for each in found] == [
        ("audit", "info"),
        ("log", "warning"),
    ]
    assert found[0]["accounts"] == ["Web"]


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (("--since", "7d"), 3),
        (("--since", "5m"), 1),
        (("--since", "2000-01-01"), 3),
        (("--account", "web"), 2),
        (("--account", "other"), 0),
        (("--lease", "abab"), 1),
    ],
)
def test_filters(logs: Path, options: tuple[str, ...], count: int) -> None:
    assert len(run(logs, *options).stdout.splitlines()) == count


def test_standard_input_is_a_log(logs: Path) -> None:
    program = "from credspec.cli.start import main; main()"
    command = [sys.executable, "-c", program, "events", "--log", "-"]
    with (logs / "agent.log").open("rb") as log:
        shown = subprocess.run(command, stdin=log, capture_output=True, text=True, check=True)
    assert "refresh-failed" in shown.stdout


@pytest.mark.parametrize(
    "text", ["", "2", "h", "2x", "9999999d", "999999d999999d999999d", "2026-13-01", "-1h"]
)
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Since().convert(text, None, None)


@given(st.text(max_size=30))
def test_any_text_is_a_moment_or_refused(text: str) -> None:
    with contextlib.suppress(click.BadParameter):
        assert Since().convert(text, None, None).tzinfo is not None
