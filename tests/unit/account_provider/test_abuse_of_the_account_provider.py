"""Clients that may not have a secret abuse the account provider; the one that may gets its own.

CREDSPEC_ABUSE_SECONDS says for how long, CREDSPEC_ABUSE_SEED repeats what was chosen by chance.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.abuse.abusers import SEED, Abuse, Abusers, seconds_of

SECONDS = seconds_of(1 / 6)
SECRET = "Very-Secret-1!"
ABUSERS = 2
MOST_TRIES = 5
MOST_LOG_BYTES_A_SECOND = 256 * 1024
GOOD = b"GET /provider HTTP/1.1\r\nHost: localhost\r\nobject: reader\r\n\r\n"


class Provider:
    """The account provider as a process of its own, and a client that may ask."""

    def __init__(self, directory: Path, authority: Any) -> None:
        certificate, key = authority.issue("localhost")
        key.chmod(0o600)
        accounts = directory / "accounts"
        accounts.mkdir()
        for name in ("reader", "other"):
            document = {"username": name, "password": SECRET, "domainName": "contoso.com"}
            (accounts / name).write_text(json.dumps(document))
            (accounts / name).chmod(0o600)
        config = directory / "config.toml"
        config.write_text(
            "[account_provider]\n"
            'listen = "127.0.0.1:0"\n'
            f'certificate = "{certificate}"\nkey = "{key}"\n'
            f'client_ca = "{authority.certificate}"\ndirectory = "{accounts}"\n'
            'clients = { host1 = "reader", host2 = "other" }\n'
        )
        self.context = ssl.create_default_context(cafile=str(authority.certificate))
        self.context.load_cert_chain(*authority.issue("host1"))
        self.log = directory / "provider.log"
        program = Path(sys.executable).with_name("credspec")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [program, "account-provider", "--config", config],
                stdout=log,
                stderr=log,
                env=os.environ,
            )
        end = time.monotonic() + 60
        while "account-provider-ready" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.05)
        ready = self.log.read_text().partition("127.0.0.1:")[2]
        self.port = int(ready[: len(ready) - len(ready.lstrip("0123456789"))])

    def answer(self) -> bytes:
        with (
            socket.create_connection(("127.0.0.1", self.port), 20) as connection,
            self.context.wrap_socket(connection, server_hostname="localhost") as shaken,
        ):
            shaken.sendall(GOOD)
            parts = []
            while part := shaken.recv(65536):
                parts.append(part)
        return b"".join(parts)

    def tries(self) -> int:
        """Ask until there is an answer, and return how often it took."""
        for number in range(1, MOST_TRIES + 1):
            try:
                answer = self.answer()
            except OSError:
                time.sleep(0.05)
                continue
            assert SECRET.encode() in answer
            return number
        raise AssertionError(f"no answer to {MOST_TRIES} questions")

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


@pytest.fixture
def provider(tmp_path: Path, authority: Any) -> Iterator[Provider]:
    running = Provider(tmp_path, authority)
    yield running
    running.process.terminate()
    assert running.process.wait(30) == 0


def as_this_user(user: str, command: list[str]) -> list[str]:
    """On a network it does not matter whose process it is."""
    del user
    return command


@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.root  # to look into the descriptors of a process that nobody else may look into
def test_clients_that_abuse_the_account_provider_keep_no_other_from_its_secret(
    provider: Provider,
    tmp_path: Path,
    authority: Any,
    other_authority: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, issuer in (("host2", authority), ("foreign", other_authority)):
        for path in issuer.issue(name):
            shutil.copy(path, tmp_path / path.name)
    assert provider.tries() == 1
    before = provider.descriptors()
    address = f"127.0.0.1:{provider.port}"
    abuses = [
        Abuse(
            f"client {n}", "support.abuse.account_provider:AccountProviderAbuser", address, tmp_path
        )
        for n in range(ABUSERS)
    ]
    abusers = Abusers(abuses, as_this_user, tmp_path / "abusers.log")
    tries, latencies = [], []
    begin = time.monotonic()
    with abusers.running():
        while time.monotonic() < begin + SECONDS:
            asked = time.monotonic()
            tries.append(provider.tries())
            latencies.append(time.monotonic() - asked)
            assert provider.process.poll() is None, provider.log.read_text()[-5000:]
            time.sleep(0.05)
    seconds = time.monotonic() - begin
    with capsys.disabled():
        print(  # noqa: T201 - what it takes to repeat it, and what was found
            f"\nseed {SEED}, {seconds:.0f} s, {abusers.killed} abusers killed; {len(tries)} "
            f"answers after {sum(tries)} questions, worst {max(latencies) * 1000:.0f} ms; log "
            f"{provider.log.stat().st_size >> 10} KiB",
            end=" ",
        )
    end = time.monotonic() + 60
    while provider.descriptors() > before + 2:
        assert time.monotonic() < end, "descriptors are left over"
        time.sleep(0.5)
    assert provider.tries() == 1
    log = provider.log.read_text()
    assert len(log) < MOST_LOG_BYTES_A_SECOND * (1 + seconds)
    assert "Traceback" not in log
    assert SECRET not in log
