"""Answers that no sound controller gives, and answers that never come.

The hostile controller is simulated, on this host, since a real one does not do such things; libldap
and all of our own code are the real ones.
"""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from credspec.directory.connection import Connection, Transport
from credspec.directory.domain import read_domain_facts
from credspec.directory.locator import DomainController
from credspec.errors import CredspecError, UnreachableError
from credspec.kerberos.krb5_conf import AgentKrb5Conf
from credspec.kerberos.service_ticket import get_service_ticket_by_tgt
from credspec.lab.domain import Lab
from credspec.session.host_identity import HOST_CACHE, MachineKeytab

ADDRESS = "127.0.0.7"
CONTROLLER = DomainController(ADDRESS, (ADDRESS,))
WAIT = 5.0
"""For so long nobody answers, in seconds: another thread gets a lot done, on a busy machine too."""


def element(tag: int, *contents: bytes) -> bytes:
    content = b"".join(contents)
    return bytes([tag, 0x84]) + len(content).to_bytes(4, "big") + content


def entry(message_id: bytes, *attributes: tuple[bytes, bytes]) -> bytes:
    shown = (element(0x30, element(4, n), element(0x31, element(4, v))) for n, v in attributes)
    return element(0x30, message_id, element(0x64, element(4, b"dc=x"), element(0x30, *shown)))


def done(message_id: bytes, *more: bytes, code: int = 0) -> bytes:
    result = (bytes([0x0A, 1, code]), b"\x04\x00", b"\x04\x00", *more)
    return element(0x30, message_id, element(0x65, *result))


def continuation(message_id: bytes) -> bytes:
    return element(0x30, message_id, element(0x73, element(4, f"ldap://{ADDRESS}/dc=x".encode())))


def silence(taken: socket.socket, message_id: bytes) -> None:
    """Never answer."""
    del taken, message_id


def referral_to_itself(taken: socket.socket, message_id: bytes) -> None:
    to = element(0xA3, element(4, f"ldap://{ADDRESS}/dc=x".encode()))
    taken.sendall(done(message_id, to, code=10))


def many_referrals(taken: socket.socket, message_id: bytes) -> None:
    taken.sendall(continuation(message_id) * 5000 + done(message_id))


def entries_without_end(taken: socket.socket, message_id: bytes) -> None:
    one = entry(message_id, (b"objectSid", b"z" * 10))
    while True:
        taken.sendall(one)
        time.sleep(0.01)


def giant_length(taken: socket.socket, message_id: bytes) -> None:
    del message_id
    taken.sendall(b"\x30\x84\x7f\xff\xff\xf0" + b"x" * 1000)


def garbage(taken: socket.socket, message_id: bytes) -> None:
    del message_id
    taken.sendall(bytes(range(256)) * 20)


def nothing(taken: socket.socket, message_id: bytes) -> None:
    taken.sendall(done(message_id))


def values_of_other_types(taken: socket.socket, message_id: bytes) -> None:
    names = (b"defaultNamingContext", b"configurationNamingContext", b"rootDomainNamingContext",
             b"objectSid", b"objectGUID", b"nCName", b"dnsRoot", b"nETBIOSName")  # fmt: skip
    taken.sendall(entry(message_id, *((n, b"\xff\0(x)*") for n in names)) + done(message_id))


def half_an_answer(taken: socket.socket, message_id: bytes) -> None:
    taken.sendall(entry(message_id, (b"objectSid", b"z" * 1000))[:500])


def hang_up(taken: socket.socket, message_id: bytes) -> None:
    del message_id
    taken.shutdown(socket.SHUT_RDWR)


Answer = Callable[[socket.socket, bytes], None]


class SimulatedController:
    """Answers searches as its function says, without a bind, and never a bind."""

    def __init__(self, answer: Answer, *, port: int = 389) -> None:
        self._answer = answer
        self._listener = socket.create_server((ADDRESS, port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                taken, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(taken,), daemon=True).start()

    def _serve(self, taken: socket.socket) -> None:
        with suppress(OSError, ValueError), taken:
            while request := taken.recv(65536):
                if request[0] != 0x30:
                    continue  # TLS
                at = request.index(2)
                message_id = request[at : at + 2 + request[at + 1]]
                operation = request[at + len(message_id)]
                if operation == 0x63:
                    self._answer(taken, message_id)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def play(lab: Lab) -> Iterator[Callable[..., None]]:
    simulated: list[SimulatedController] = []
    yield lambda answer, **options: simulated.append(SimulatedController(answer, **options))
    for each in simulated:
        each.close()


@pytest.mark.parametrize(
    "answer",
    [referral_to_itself, many_referrals, entries_without_end, giant_length, garbage, nothing,
     values_of_other_types, hang_up, silence, half_an_answer],
)  # fmt: skip
def test_an_answer_that_is_none_is_our_error_in_time(
    play: Callable[..., None], answer: Answer
) -> None:
    play(answer)
    connection = Connection.open(CONTROLLER, anonymous=True)
    with pytest.raises(CredspecError):
        read_domain_facts(connection)
    connection.close()


class OtherWork:
    """Counts what another thread gets done meanwhile."""

    def __init__(self) -> None:
        self.done = 0
        self._ended = threading.Event()
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while not self._ended.wait(0.005):
            self.done += 1

    def end(self) -> int:
        self._ended.set()
        return self.done


@pytest.mark.parametrize("transport", Transport)
def test_waiting_for_a_logon_stops_no_other_thread(
    play: Callable[..., None], lab: Lab, host_identity: MachineKeytab, transport: Transport
) -> None:
    host_identity.get_service_ticket(f"ldap/{lab.dc_host}")
    play(silence, port=transport.port)
    work = OtherWork()
    silent = DomainController(lab.dc_host, (ADDRESS,))
    with pytest.raises(UnreachableError, match="ldap-timeout"):
        Connection.open(silent, transport, ca_file=lab.directory / "ca.pem", seconds=WAIT)
    # One that held the GIL all the while would have left time for a handful.
    assert work.end() > 50


@pytest.mark.parametrize("answer", [silence, half_an_answer])
def test_waiting_for_a_search_stops_no_other_thread(
    play: Callable[..., None], answer: Answer
) -> None:
    play(answer)
    connection = Connection.open(CONTROLLER, anonymous=True)
    work = OtherWork()
    with pytest.raises(UnreachableError, match="ldap-timeout"):
        connection.search("", "(objectClass=*)", ("*",), subtree=False, seconds=WAIT)
    assert work.end() > 50


@pytest.fixture
def silent_kdc(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], socket.socket]]:
    """Make the realm's KDC one that takes connections and never answers."""

    def silence() -> socket.socket:
        conf = AgentKrb5Conf(tmp_path / "krb5.conf")
        conf.set_kdcs(lab.realm, [ADDRESS])
        monkeypatch.setenv("KRB5_CONFIG", str(tmp_path / "krb5.conf"))
        listeners.append(socket.create_server((ADDRESS, 88)))
        return listeners[0]

    listeners: list[socket.socket] = []
    yield silence
    for listener in listeners:
        listener.close()


def test_waiting_for_a_key_distribution_center_stops_no_other_thread(
    host_identity: MachineKeytab,
    controller: DomainController,
    silent_kdc: Callable[[], socket.socket],
) -> None:
    listener = silent_kdc()
    work = OtherWork()
    threading.Timer(WAIT, listener.close).start()
    with pytest.raises(UnreachableError, match="kdc-unreachable"):
        host_identity.get_service_ticket(f"ldap/{controller.host}")
    assert work.end() > 50


def test_waiting_for_a_ticket_by_a_tgt_stops_no_other_thread(
    host_identity: MachineKeytab,
    controller: DomainController,
    silent_kdc: Callable[[], socket.socket],
) -> None:
    host_identity.log_on()
    listener = silent_kdc()
    work = OtherWork()
    threading.Timer(WAIT, listener.close).start()
    with pytest.raises(UnreachableError, match="kdc-unreachable"):
        get_service_ticket_by_tgt(HOST_CACHE, f"cifs/{controller.host}")
    assert work.end() > 50


def test_a_bind_needs_no_key_distribution_center_any_more(
    host_identity: MachineKeytab,
    controller: DomainController,
    silent_kdc: Callable[[], socket.socket],
) -> None:
    """Since libsasl would stop all threads while it waits for one."""
    host_identity.get_service_ticket(f"ldap/{controller.host}")
    silent_kdc()
    connection = Connection.open(controller)
    assert read_domain_facts(connection).dns_name == "example.test"
    connection.close()


def test_a_giant_result_is_bounded_by_the_agents_limit_on_memory(tmp_path: Path) -> None:
    """In a process limited as the agent limits itself; two gigabytes are announced and sent."""
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import os
from credspec.directory.connection import Connection
from credspec.service.process_safety import limit_memory
limit_memory()
import test_hostile_controller as simulated
from credspec.errors import CredspecError
def giant(taken, message_id):
    one = simulated.entry(message_id, (b"objectSid", b"z" * 100_000))
    for _ in range(20_000):
        taken.sendall(one)
    taken.sendall(simulated.done(message_id))
simulated.SimulatedController(giant)
connection = Connection.open(simulated.CONTROLLER, anonymous=True)
try:
    connection.search("", "(objectClass=*)", ("*",), seconds=60)
except (CredspecError, MemoryError) as error:
    print("refused", type(error).__name__)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120
    )
    assert result.stdout.startswith("refused"), result.stderr
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 3 << 20  # KiB
