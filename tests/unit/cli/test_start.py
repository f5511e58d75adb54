"""What goes without click: only what is meant without any doubt."""

from __future__ import annotations

import subprocess
import sys

import pytest

from credspec.cli.start import _agent_options


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ([], {}),
        (["--config", "/c"], {"--config": "/c"}),
        (["--config=/c"], {"--config": "/c"}),
        (["--config=a=b"], {"--config": "a=b"}),
        (
            ["--grpc-compat", "/s", "--config=c"],
            {"--grpc-compat": "/s", "--config": "c"},
        ),
    ],
)
def test_options_of_an_agent_that_runs(arguments: list[str], options: dict[str, str]) -> None:
    assert _agent_options(arguments) == options


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["-h"],
        ["--check"],
        ["--prepare"],
        ["--config"],
        ["--config="],
        ["--config", "--check"],
        ["--config", "/c", "--check"],
        ["--config", "/c", "--config", "/d"],
        ["--con", "/c"],
        ["/c"],
        ["--", "--config"],
    ],
)
def test_everything_else_is_left_to_click(arguments: list[str]) -> None:
    assert _agent_options(arguments) is None


def test_the_agent_and_the_driver_import_no_more_than_they_need() -> None:
    """Each of these takes a MiB or more, for as long as they run, on each host."""
    for modules, unneeded in (
        ("credspec.cli.start, credspec.cli.agent_process, credspec.agent.daemon", "click grpc"),
        ("credspec.kubernetes.csi.server", "krb5 dns cryptography"),
    ):
        always = "aiohttp email.parser http.client importlib.metadata prometheus_client"
        names = f"{unneeded} {always}".split()
        script = f"import sys, {modules}\nprint([n for n in {names} if n in sys.modules])"
        found = subprocess.run(
            [sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True
        )
        assert found.stdout == "[]\n"


def test_an_error_is_a_line(tmp_path: object) -> None:
    script = "import sys; from credspec.cli.start import main; main()"
    found = subprocess.run(
        [sys.executable, "-c", script, "agent", "--config", f"{tmp_path}/missing.toml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode not in {0, 1}
    assert found.stderr.startswith("credspec: ")
    assert "Traceback" not in found.stderr
