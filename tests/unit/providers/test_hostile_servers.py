"""Simulated servers that never answer, answer without end, or are not who they should be."""

from __future__ import annotations

import importlib
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from credspec.errors import CredspecError, NotPermittedError, UnreachableError
from credspec.providers.deadline import Deadline
from credspec.providers.https import HttpsClient
from credspec.providers.provider import HostAccount, PluginSource
from credspec.providers.selection import Providers
from credspec.providers.server_url import Server
from credspec.providers.settings import ProviderSettings
from credspec.providers.tls import client_context
from credspec.spec.host_account_plugins import CREDSPEC_PLUGIN_GUID
from support.servers.simulated_services import (
    ACCOUNT,
    KINDS,
    STRICT,
    VAULT_HOST,
    Certificates,
    HostileServer,
    HttpsService,
    answer_of,
    aws_environment,
    drip,
    input_of,
    metadata_answer,
    resolving,
    server_name,
    settings_of,
)

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls") / "good")


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ExitStack]:
    """What AWS' and Azure's libraries get their credentials from, as on their hosts.

    What is entered into it ends with the test.
    """
    for name, value in aws_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    with ExitStack() as stack:
        metadata = stack.enter_context(HttpsService(None, metadata_answer))
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", f"http://127.0.0.1:{metadata.port}")
        yield stack


@dataclass
class Bench:
    """Asks the provider of a kind, whose service is at a port; `start` makes such a service."""

    directory: Path
    monkeypatch: pytest.MonkeyPatch
    certificates: Certificates
    stack: ExitStack

    def ask(self, kind: str, port: int, *, ca: bytes | None = None) -> HostAccount:
        self.monkeypatch.setattr(socket, "getaddrinfo", resolving({VAULT_HOST: port}))
        table = settings_of(kind, self.directory / "service", port, self.certificates, ca)
        # Libraries load for seconds on a busy machine, and what is asked here ends by itself.
        settings = ProviderSettings(enabled=(kind,), deadline_seconds=60, tables={kind: table})
        source = PluginSource(CREDSPEC_PLUGIN_GUID, f"{kind}:{input_of(kind)}")
        return Providers(settings).account(source)

    def start(
        self,
        kind: str,
        answer: Any = None,
        certificates: Certificates | None = None,
        name: str = "",
    ) -> HttpsService:
        pair = (certificates or self.certificates).issue(name or server_name(kind))
        return self.stack.enter_context(HttpsService(pair, answer or answer_of(kind)))


@pytest.fixture
def bench(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    certificates: Certificates,
    surroundings: ExitStack,
) -> Bench:
    return Bench(tmp_path, monkeypatch, certificates, surroundings)


@pytest.mark.parametrize("kind", KINDS)
def test_a_simulated_service_gives_its_account(bench: Bench, kind: str) -> None:
    """So the tests below could fail."""
    account = bench.ask(kind, bench.start(kind).port)
    assert (account.user, account.password) == (ACCOUNT["username"], ACCOUNT["password"])


def continues(connection: socket.socket) -> None:
    drip(connection, b"", b"HTTP/1.1 100 Continue\r\n\r\n")


SLOW: dict[str, tuple[bool, Callable[[socket.socket], None]]] = {
    "nothing at all": (False, lambda _: None),
    "a handshake in drops": (False, partial(drip, start=b"\x16\x03\x03\x40\x00", part=b"\x00")),
    "no answer": (True, lambda _: None),
    "a status in drops": (True, partial(drip, start=b"HTTP/1.1 200 ", part=b"O")),
    "headers in drops": (True, partial(drip, start=HEAD, part=b"X")),
    "a body in drops": (
        True,
        partial(drip, start=HEAD + b"Content-Length: 60000\r\n\r\n", part=b" "),
    ),
    "chunks in drops": (
        True,
        partial(drip, start=HEAD + b"Transfer-Encoding: chunked\r\n\r\n", part=b"1\r\n \r\n"),
    ),
    "a body without length": (True, partial(drip, start=HEAD + b"\r\n", part=b" ")),
    "always to be continued": (True, continues),
}


@pytest.mark.parametrize("slow", SLOW)
def test_the_whole_answer_has_a_deadline(certificates: Certificates, slow: str) -> None:
    after_tls, behave = SLOW[slow]
    pair = certificates.issue("localhost") if after_tls else None
    with HostileServer(behave, pair) as server:
        client = HttpsClient(
            Server("localhost", server.port),
            client_context("w", certificates.authority.read_bytes()),
            Deadline(1),
            "w",
        )
        with pytest.raises(
            UnreachableError, match=f"localhost:{server.port}.*host-account-timeout"
        ):
            client.ask("GET", "/")
        assert server.all_closed()


@pytest.mark.parametrize("slow", ["a handshake in drops", "a body in drops"])
def test_so_it_has_with_every_provider(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    certificates: Certificates,
    surroundings: ExitStack,
    slow: str,
) -> None:
    after_tls, behave = SLOW[slow]
    # Libraries load for seconds on a busy machine, and the deadline is to be the server's.
    for library in ("boto3", "botocore.session", "hvac"):
        importlib.import_module(library)
    servers = {
        kind: surroundings.enter_context(
            HostileServer(behave, certificates.issue(server_name(kind)) if after_tls else None)
        )
        for kind in KINDS
    }
    ports = {VAULT_HOST: servers["azure-key-vault"].port}
    monkeypatch.setattr(socket, "getaddrinfo", resolving(ports))
    tables = {
        kind: settings_of(kind, tmp_path / kind, servers[kind].port, certificates) for kind in KINDS
    }
    providers = Providers(ProviderSettings(enabled=KINDS, deadline_seconds=8, tables=tables))

    def code_of(kind: str) -> str:
        with pytest.raises(UnreachableError) as caught:
            providers.account(PluginSource(CREDSPEC_PLUGIN_GUID, f"{kind}:{input_of(kind)}"))
        return caught.value.code

    with ThreadPoolExecutor() as threads:
        assert set(threads.map(code_of, KINDS)) == {"host-account-timeout"}
    for server in servers.values():
        assert server.all_closed()
    while providers._limits.waiting():
        time.sleep(0.01)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "said",
    [
        b"garbage\r\n\r\n",
        HEAD + b"Content-Length: 100000000\r\n\r\n" + b" " * 200000,
        HEAD + b"Content-Length: -1\r\n\r\n{}",
        HEAD + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        HEAD + b"".join(b"X-%d: y\r\n" % n for n in range(300)) + b"\r\n",
        HEAD + b"X: " + b"y" * 100000 + b"\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        HEAD + b"Content-Length: 0\r\n\r\n",
        b"",
    ],
    ids=range(9),
)
def test_answers_that_are_none(bench: Bench, kind: str, said: bytes) -> None:
    def behave(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)

    pair = bench.certificates.issue(server_name(kind))
    server = bench.stack.enter_context(HostileServer(behave, pair))
    with pytest.raises(CredspecError, match="host-account-"):
        bench.ask(kind, server.port)
    assert server.all_closed()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(bench: Bench, kind: str, status: int) -> None:
    other = bench.start(kind, name="localhost")
    place = {"Location": f"https://localhost:{other.port}/provider"}
    service = bench.start(kind, lambda *_: (status, place, b""))
    with pytest.raises(CredspecError, match="host-account-"):
        bench.ask(kind, service.port)
    assert service.asked
    assert other.asked == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [429, 500, 503])
def test_no_server_says_how_long_to_wait(bench: Bench, kind: str, status: int) -> None:
    later = {"Retry-After": "3600", "retry-after-ms": "3600000", "x-ms-retry-after-ms": "3600000"}
    later["x-amz-retry-after"] = "3600000"
    service = bench.start(kind, lambda *_: (status, later, b"{}"))
    with pytest.raises(CredspecError) as caught:
        bench.ask(kind, service.port)
    assert caught.value.code != "host-account-timeout"
    assert len(service.asked) == 1


BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE")
AUTHORITIES = {
    "empty": b"",
    "a blank": b" \n",
    "a comment": b"# rotation under way\n",
    "not PEM": b"\x00\x01\x02",
    "cut off": b"-----BEGIN CERTIFICATE-----\nMIIB\n",
    "no certificate in it": b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", AUTHORITIES.values(), ids=AUTHORITIES)
def test_without_authorities_nobody_is_trusted(bench: Bench, kind: str, content: bytes) -> None:
    # The host's authorities would take the server.
    for name in BUNDLES:
        bench.monkeypatch.setenv(name, str(bench.certificates.authority))
    service = bench.start(kind)
    with pytest.raises(NotPermittedError, match=r"ca_file cannot be used.*host-account-tls"):
        bench.ask(kind, service.port, ca=content)
    assert service.asked == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_environment_has_no_say(bench: Bench, tmp_path: Path, kind: str) -> None:
    other = Certificates(tmp_path / "other")
    for name in BUNDLES:
        bench.monkeypatch.setenv(name, str(other.authority))
    bench.monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    proxy = bench.stack.enter_context(HostileServer(lambda _: None))
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        bench.monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    for name in ("AWS_ENDPOINT_URL", "VAULT_ADDR"):
        bench.monkeypatch.setenv(name, f"https://127.0.0.1:{proxy.port}")
    # A server of the authority that the environment names is none.
    service = bench.start(kind, certificates=other)
    with pytest.raises(NotPermittedError, match="host-account-tls"):
        bench.ask(kind, service.port)
    assert service.asked == []
    assert bench.ask(kind, bench.start(kind).port).password == ACCOUNT["password"]
    assert proxy.connections == []
    # AWS' library makes a context of its own, which it does not come to use.
    keys = tmp_path / "keys"
    written = keys.read_text().splitlines() if keys.exists() else []
    assert [line for line in written if not line.startswith("#")] == []


# Extensions of the authority, name in the server's certificate, OpenSSL's reason, what to do.
REFUSED = {
    "no key usage": (
        {"basicConstraints": "critical,CA:TRUE"},
        *("", "CA cert does not include key usage extension", "keyUsage keyCertSign"),
    ),
    "not critical": (
        {"basicConstraints": "CA:TRUE", "keyUsage": "critical,keyCertSign"},
        *("", "Basic Constraints of CA cert not marked critical", "basicConstraints CA:TRUE"),
    ),
    "another authority": ({}, "", "unable to get local issuer certificate", "into ca_file"),
    "another name": (STRICT, "elsewhere.lab", "Hostname mismatch", "subjectAltName"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("why", REFUSED)
def test_a_refused_certificate_is_told_with_openssls_reason(
    bench: Bench, tmp_path: Path, kind: str, why: str
) -> None:
    # What Python 3.13 demands of certificates.
    newer = SimpleNamespace(version_info=(3, 13))
    bench.monkeypatch.setattr("credspec.providers.tls.sys", newer)
    extensions, name, reason, remedy = REFUSED[why]
    issuer = Certificates(tmp_path / "issuer", extensions or STRICT)
    trusted = issuer if extensions else bench.certificates
    service = bench.start(kind, certificates=issuer, name=name)
    with pytest.raises(NotPermittedError, match="host-account-tls") as caught:
        bench.ask(kind, service.port, ca=trusted.authority.read_bytes())
    for text in (reason, remedy, server_name(kind)):
        assert text in str(caught.value)
    assert service.asked == []


def test_a_server_that_speaks_no_tls(bench: Bench) -> None:
    service = bench.stack.enter_context(HttpsService(None, answer_of("rancher")))
    for kind in KINDS:
        with pytest.raises(NotPermittedError, match="host-account-tls"):
            bench.ask(kind, service.port)


def test_the_contexts_of_this_python_and_of_3_13_are_as_its_own(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ssl.create_default_context()
    made = client_context("w", certificates.authority.read_bytes())
    assert made.verify_flags == own.verify_flags
    assert (made.verify_mode, made.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert made.cert_store_stats()["x509_ca"] == 1
    assert client_context("w", None).cert_store_stats() is not None
    monkeypatch.setattr("credspec.providers.tls.sys", SimpleNamespace(version_info=(3, 13)))
    strict = client_context("w", certificates.authority.read_bytes()).verify_flags
    assert strict & ssl.VERIFY_X509_STRICT


@pytest.mark.parametrize("kind", KINDS)
def test_a_neighbour_that_hangs_keeps_nobody_from_their_accounts(bench: Bench, kind: str) -> None:
    go_on = threading.Event()

    def answer(method: str, path: str, headers: dict[str, str], body: bytes) -> Any:
        is_first = {
            "kubernetes": path.endswith("/reader"),
            "rancher": headers.get("object") == "hang",
            "vault": "/apps/" in path,
            "aws": "eu-west-1" in headers.get("authorization", ""),
            "azure-key-vault": headers.get("host") == VAULT_HOST,
        }
        if is_first[kind]:
            go_on.wait()
        return answer_of(kind)(method, path, headers, body)

    local = bench.start(kind, answer, name="localhost")
    ports = {
        name: bench.start(kind, answer, name=name).port for name in (VAULT_HOST, "kv2.vault.lab")
    }
    bench.monkeypatch.setattr(socket, "getaddrinfo", resolving(ports))
    table = settings_of(kind, bench.directory / "service", local.port, bench.certificates)
    # Nothing here waits for its end.
    settings = ProviderSettings(enabled=(kind,), deadline_seconds=200, tables={kind: table})
    providers = Providers(settings)

    def outcome_of(given: str) -> str:
        try:
            source = PluginSource(CREDSPEC_PLUGIN_GUID, f"{kind}:{given}")
            return providers.account(source).password
        except UnreachableError as error:
            return error.code

    hang = "apps:hang" if kind == "rancher" else input_of(kind)
    with ThreadPoolExecutor(20) as threads:
        hanging = [threads.submit(outcome_of, hang) for _ in range(20)]
        try:
            while sum(each.done() for each in hanging) < 12:
                time.sleep(0.01)
            assert providers._limits.waiting() == 8
            # While the first has all of its share, another one is served.
            assert outcome_of(input_of(kind, 2)) == ACCOUNT["password"]
        finally:
            go_on.set()
        outcomes = Counter(each.result() for each in hanging)
    assert outcomes == {ACCOUNT["password"]: 8, "host-account-busy": 12}
    assert outcome_of(hang) == ACCOUNT["password"]
