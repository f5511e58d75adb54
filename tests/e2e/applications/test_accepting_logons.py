"""A web application in a container that takes logons as a gMSA.

The page is docs/applications/accepting-logons.md.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from credspec.lab.network import connects

IMAGE = "applications"
EXAMPLES = Path(__file__).parents[3] / "docs/applications/examples"
PORT = 8080
CURL = f"curl -sS --fail --negotiate -u : http://web.example.test:{PORT}/"
APACHE = {
    "LISTEN": PORT,
    "KEYTAB": "/run/credspec/krb5.keytab",
    "RUNTIME": "/tmp",  # noqa: S108 - the container's own
    "SERVER": "web.example.test",
    "PAGES": "/app/pages",
}


def start(host, *options: str, account: str = "WebApp01") -> str:
    variables = " ".join(f"-e {name}={value}" for name, value in APACHE.items())
    return host.shell(
        f'docker run -d --name web --security-opt "credentialspec=file://{account}.json" '
        f"{' '.join(options)} --user 1000:1000 -p {PORT}:{PORT} {variables} "
        f"-v /usr:/usr:ro -v {EXAMPLES}:/app:ro {IMAGE} "
        "apache2 -f /app/negotiate.conf -D FOREGROUND"
    ).stderr


def listening(host, *, starts: int = 1) -> bool:
    """Whether Apache serves, for so many times; without a word it may have been killed before."""
    end = time.monotonic() + 60
    # Docker's own proxy listens from the start, so Apache's own words count.
    while time.monotonic() < end:
        ready = logs(host).count("resuming normal operations") == starts
        if ready and connects(host.lab.dc_address, PORT):
            return True
        time.sleep(0.1)
    return False


def says(host, words: str) -> bool:
    """Whether Apache's log has the words, which Docker may have a moment after the answer."""
    end = time.monotonic() + 60
    while words not in logs(host):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def logs(host) -> str:
    shown = host.shell("docker logs web")
    return shown.stdout + shown.stderr


@pytest.fixture
def web(run, host) -> Iterator[None]:
    said = start(host, "--label credspec.dev/keytab=true")
    try:
        assert listening(host), said + logs(host)
        yield
    finally:
        host.shell("docker rm -f web")


@pytest.mark.parametrize("options", ["", "--user 1000:1000", "--label credspec.dev/mode=0444"])
def test_an_acceptor_needs_no_writable_place_of_the_image(run, host, options: str) -> None:
    """Its replay cache is beside the keytab; the image is read-only and has no /tmp to write to."""
    programs = Path(__file__).parent / "programs"
    shown = run(
        "python3 /programs/accept_from_itself.py",
        options=f"--read-only {options} -v {programs}:/programs:ro "
        "--label credspec.dev/keytab=true",
    )
    assert shown.stdout.splitlines()[:1] == ["WebApp01$@EXAMPLE.TEST"], shown.stderr
    user = "1000" if "1000" in options else "0"
    assert shown.stdout.splitlines()[1:] == [f"{user}.rcache2"]


def test_an_acceptor_without_environment_finds_keytab_and_replay_cache(run, host) -> None:
    programs = Path(__file__).parent / "programs"
    options = f"--read-only -v {programs}:/programs:ro --label credspec.dev/keytab=true"
    shown = run("env -i /usr/bin/python3 /programs/accept_from_itself.py", options=options)
    assert shown.stdout.split() == ["WebApp01$@EXAMPLE.TEST", "0.rcache2"], shown.stderr


def test_it_knows_its_callers_and_goes_on_after_restarts(run, host, web: None) -> None:
    caller = run(CURL, "WebApp02")
    assert caller.stdout.strip() == "WebApp02$@EXAMPLE.TEST", caller.stderr + logs(host)
    nobody = run(CURL, None)
    assert (nobody.returncode, nobody.stdout) == (22, "")

    assert host.shell("docker restart -t 5 web").returncode == 0
    assert listening(host, starts=2), logs(host)
    assert run(CURL, "WebApp02").stdout.strip() == "WebApp02$@EXAMPLE.TEST", logs(host)

    host.stop("agent", signal.SIGKILL)
    host.start("agent")
    assert run(CURL, "WebApp03").stdout.strip() == "WebApp03$@EXAMPLE.TEST", logs(host)


@pytest.mark.parametrize(
    ("account", "label", "said"),
    [
        ("WebApp01", "", "Cannot open keytab file /run/credspec/krb5.keytab"),
        (
            "WebApp02",
            "--label credspec.dev/keytab=true",
            "Request ticket server HTTP/web.example.test@EXAMPLE.TEST not found in keytab",
        ),
    ],
    ids=["no label", "the SPN is another account's"],
)
def test_apache_says_why_it_refuses(run, host, account: str, label: str, said: str) -> None:
    start(host, label, account=account)
    try:
        assert listening(host), logs(host)
        caller = run(CURL, "WebApp02")
        assert caller.returncode == 22
        assert "401" in caller.stderr
        assert says(host, said), logs(host)
    finally:
        host.shell("docker rm -f web")
