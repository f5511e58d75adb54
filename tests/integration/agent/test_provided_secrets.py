"""Where passwords of host accounts could be left: the agent's memory, files, arguments, logs."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import krb5
import pytest

from credspec.errors import CredspecError, UnreachableError
from credspec.kerberos.keys import Enctype, derive_user_key
from credspec.lab.domain import Lab
from credspec.spec.host_account_plugins import CREDSPEC_PLUGIN_GUID
from support.agent.agent_process import AgentProcess
from support.servers.simulated_services import (
    KINDS,
    VAULT_HOST,
    Certificates,
    HttpsService,
    answer_of,
    aws_environment,
    input_of,
    metadata_answer,
    server_name,
    settings_of,
)

LOCAL = ("file", "keytab", "systemd", "program")
KEY_VAULT_ADDRESS = "127.0.66.2"


@dataclass
class Reader:
    """A user who may read the password of WebApp02, and all that is made of its own."""

    lab: Lab
    name: str
    password: str

    @property
    def account(self) -> dict[str, str]:
        """Its account as services hold it."""
        domain = self.lab.dns_domain
        return {"username": self.name, "password": self.password, "domainName": domain}

    def secrets(self) -> dict[str, bytes]:
        """The password in the forms in which memory may hold it, and its keys."""
        found = {
            "password": self.password.encode(),
            "wide password": self.password.encode("utf-16-le"),
            "wider password": self.password.encode("utf-32-le"),
        }
        salt = f"{self.lab.realm}{self.name}".encode()
        for enctype in (Enctype.AES256_CTS_HMAC_SHA1_96, Enctype.AES128_CTS_HMAC_SHA1_96):
            found[f"key {int(enctype)}"] = derive_user_key(self.password, enctype, salt, 4096).value
        return found


@pytest.fixture(scope="module")
def reader(lab: Lab) -> Iterator[Reader]:
    found = Reader(lab, "memory-reader", secrets.token_urlsafe(24) + "aA1!")
    lab.samba_tool("user", "create", found.name, "--random-password")
    lab.samba_tool("user", "setpassword", found.name, f"--newpassword={found.password}")
    lab.samba_tool("group", "addmembers", "LabHosts", found.name)
    yield found
    lab.samba_tool("user", "delete", found.name)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls") / "good")


def memory_of(pid: int) -> Iterator[bytes]:
    """Read all that a process could lose in a core dump, as root can."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in maps:
            span, mode, *_ = line.split()
            if not mode.startswith("rw") or line.endswith(("[vvar]", "[vsyscall]")):
                continue
            low, _, high = span.partition("-")
            memory.seek(int(low, 16))
            try:
                yield memory.read(int(high, 16) - int(low, 16))
            except OSError:
                continue


def left_soon(pid: int, wanted: Mapping[str, bytes]) -> dict[str, int]:
    """Return what is left when a call has ended; what is being freed may be seen once more."""
    end = time.monotonic() + 20
    while (found := left_in(pid, wanted)) and time.monotonic() < end:
        time.sleep(0.2)
    return found


def left_in(pid: int, wanted: Mapping[str, bytes]) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in memory_of(pid):
        for name, value in wanted.items():
            if number := part.count(value):
                found[name] = found.get(name, 0) + number
    return found


@dataclass
class Provided:
    """An agent of a host without keytab, whose accounts a provider of a kind gives."""

    agent: AgentProcess
    reader: Reader
    given: str
    environment: Mapping[str, str]

    def start(self) -> int:
        self.agent.start(**self.environment)
        assert self.agent.process is not None
        return self.agent.process.pid

    def put(self) -> None:
        """Make a lease; a busy machine may load a client library for longer than the deadline."""
        end = time.monotonic() + 200
        while True:
            try:
                self.agent.put(1, "file://provided.json")
            except UnreachableError as error:
                if error.code != "host-account-timeout" or time.monotonic() > end:
                    raise
            else:
                return


def toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    return "".join(
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        for name, table in tables.items()
    )


@pytest.fixture
def provided(
    lab: Lab, reader: Reader, tmp_path: Path, certificates: Certificates, request: Any
) -> Iterator[Provided]:
    kind, seconds = request.param
    environment: dict[str, str] = {}
    with ExitStack() as stack:
        if kind in KINDS:
            table, given = _service(stack, kind, reader, tmp_path, certificates)
            metadata = stack.enter_context(HttpsService(None, metadata_answer))
            environment = aws_environment(tmp_path)
            address = f"http://127.0.0.1:{metadata.port}"
            environment["AZURE_POD_IDENTITY_AUTHORITY_HOST"] = address
        else:
            table, given = _local(kind, reader, tmp_path)
            environment["CREDENTIALS_DIRECTORY"] = str(tmp_path / "accounts")
        settings = {"enabled": [kind], "secret_seconds": seconds, "deadline_seconds": 25}
        extra = toml({"providers": settings, f"providers.{kind}": table})
        (tmp_path / "agent").mkdir()
        agent = AgentProcess(lab, tmp_path / "agent", extra=extra)
        text = agent.config.read_text().replace(str(lab.host_keytab), "/nonexistent")
        agent.config.write_text(text)
        # Members of LabHosts may read WebApp02's password; WebApp01's only the host itself.
        text = (agent.directory / "specs/one.json").read_text().replace("WebApp01", "WebApp02")
        document = json.loads(text)
        document["ActiveDirectoryConfig"]["HostAccountConfig"] = {
            "PortableCcgVersion": "1",
            "PluginGUID": CREDSPEC_PLUGIN_GUID,
            "PluginInput": f"{kind}:{given}",
        }
        (agent.directory / "specs/provided.json").write_text(json.dumps(document))
        stack.callback(agent.close)
        yield Provided(agent, reader, given, environment)


def _service(
    stack: ExitStack, kind: str, reader: Reader, tmp_path: Path, certificates: Certificates
) -> tuple[dict[str, Any], str]:
    address = (KEY_VAULT_ADDRESS, 443) if kind == "azure-key-vault" else ("127.0.0.1", 0)
    pair = certificates.issue(server_name(kind))
    service = stack.enter_context(HttpsService(pair, answer_of(kind, reader.account), address))
    hosts = reader.lab.directory / "hosts"
    before = hosts.read_text()
    # In place: what is bound to /etc/hosts is this very file.
    hosts.write_text(f"{before}{KEY_VAULT_ADDRESS} {VAULT_HOST}\n")
    stack.callback(hosts.write_text, before)
    return settings_of(kind, tmp_path / "service", service.port, certificates), input_of(kind)


def _local(kind: str, reader: Reader, tmp_path: Path) -> tuple[dict[str, Any], str]:
    accounts = tmp_path / "accounts"
    accounts.mkdir(mode=0o700)
    (accounts / "reader").write_text(json.dumps(reader.account))
    (accounts / "reader").chmod(0o600)
    keytab = accounts / "reader.keytab"
    reader.lab.samba_tool("domain", "exportkeytab", str(keytab), f"--principal={reader.name}")
    keytab.chmod(0o600)
    program = accounts / "program"
    program.write_text(f"#!/bin/sh\ncat {accounts}/reader\n")
    program.chmod(0o700)
    tables: dict[str, dict[str, Any]] = {
        "program": {"command": [str(program)]},
        "systemd": {},
    }
    given = {"keytab": "reader.keytab", "program": "x"}
    return tables.get(kind, {"directory": str(accounts)}), given.get(kind, "reader")


def test_the_search_finds_what_is_there(reader: Reader) -> None:
    wanted = reader.secrets()
    held = [bytearray(value) for value in wanted.values()]
    assert left_in(os.getpid(), wanted).keys() == wanted.keys()
    assert held


def test_the_keys_are_the_domains(reader: Reader, tmp_path: Path) -> None:
    """So what is searched for is what would be left."""
    keytab = tmp_path / "reader.keytab"
    reader.lab.samba_tool("domain", "exportkeytab", str(keytab), f"--principal={reader.name}")
    context = krb5.init_context()
    table = krb5.kt_resolve(context, f"FILE:{keytab}".encode())
    # Of the password that it had before, too.
    entries = sorted(table, key=lambda entry: entry.kvno)
    keys = {f"key {entry.key.enctype}": entry.key.data for entry in entries}
    wanted = reader.secrets()
    assert {name: keys[name] for name in ("key 17", "key 18")}.items() <= wanted.items()


@pytest.mark.parametrize("provided", [(kind, 0) for kind in (*LOCAL, *KINDS)], indirect=True)
def test_nothing_of_a_password_stays_after_a_logon(provided: Provided) -> None:
    """Services that cannot be had here are simulated; their client libraries are the real ones."""
    pid = provided.start()
    provided.agent.mount(1)
    provided.put()
    assert left_soon(pid, provided.reader.secrets()) == {}
    # Not on its command line, in its environment or its logs either.
    for text in (
        Path(f"/proc/{pid}/cmdline").read_bytes(),
        Path(f"/proc/{pid}/environ").read_bytes(),
        provided.agent.log.read_bytes(),
        provided.agent.audit_log.read_bytes(),
    ):
        assert not any(value in text for value in provided.reader.secrets().values())


@pytest.mark.parametrize("provided", [("file", 10), ("vault", 10)], indirect=True)
def test_a_password_that_is_kept_is_gone_in_time(provided: Provided) -> None:
    pid = provided.start()
    provided.agent.mount(1)
    provided.put()
    assert "password" in left_in(pid, provided.reader.secrets())
    while left_in(pid, provided.reader.secrets()):
        time.sleep(0.2)


@pytest.mark.parametrize("provided", [("file", 300), ("program", 300)], indirect=True)
def test_nothing_of_a_password_stays_that_was_refused(provided: Provided) -> None:
    pid = provided.start()
    provided.agent.mount(1)
    wrong = provided.reader.password + "wrong"
    account = provided.agent.directory.parent / "accounts/reader"
    account.write_text(json.dumps(provided.reader.account | {"password": wrong}))
    for _ in range(2):
        with pytest.raises(CredspecError, match="kdc-password-refused"):
            provided.agent.put(1, "file://provided.json")
    assert left_soon(pid, {"wrong": wrong.encode()}) == {}
