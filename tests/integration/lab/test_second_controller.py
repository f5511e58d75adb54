"""A second real controller of the domain: as good as the first, and broken at will."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from credspec.directory.accounts import read_managed_password
from credspec.directory.connection import Connection, Transport
from credspec.directory.domain import read_domain_facts
from credspec.directory.locator import DnsResolver, DomainController, Locator
from credspec.errors import CredspecError
from credspec.kerberos.krb5_conf import AgentKrb5Conf
from credspec.kerberos.tickets import ticket_from_managed_password
from credspec.lab import second_controller
from credspec.lab.domain import Lab
from credspec.lab.network import _names as network_names
from credspec.lab.network import has_ipv6
from credspec.lab.second_controller import (
    SecondController,
    find_second_controller,
    up_second_controller,
)
from credspec.session.host_identity import MachineKeytab

pytestmark = pytest.mark.timeout(900)  # domains and controllers are made

SRV = "_ldap._tcp.dc._msdcs.example.test"
FILES = ("hosts", "resolv.conf", "krb5.conf", "ca.pem")


def traces(lab: Lab) -> dict[str, object]:
    """Everything that a second controller could leave, in the domain and on the machine."""

    def printed(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    resolver = DnsResolver(nameserver=lab.dc_address)
    database = str(lab.directory / "dc/private/sam.ldb")
    names = (lab.dns_domain, f"gc._msdcs.{lab.dns_domain}", lab.dc_host, f"dc2.{lab.dns_domain}")
    return {
        "mounts": Path("/proc/self/mountinfo").read_text().count(" /run/samba "),
        "services": resolver.srv(SRV),
        "addresses": {name: sorted(resolver.addresses(name)) for name in names},
        "objects": printed("ldbsearch", "-H", database, "--cross-ncs", "(cn=DC2)", "dn"),
        "links": {link["ifname"] for link in json.loads(printed("ip", "-j", "link"))}
        & {lab.network.host_interface, network_names(lab.second_network)[1]},
        "links inside": {
            link["ifname"]
            for link in json.loads(printed("ip", "-n", lab.network.namespace, "-j", "link"))
        },
        "namespaces": set(printed("ip", "netns").split()) & {f"credspec-{lab.name}.dc2"},
        "processes": [line for line in printed("ps", "-eo", "args").splitlines() if "/dc2" in line],
        "files": [(lab.directory / name).read_text("utf-8") for name in FILES],
        "directory": sorted(path.name for path in lab.directory.iterdir()),
    }


@pytest.fixture(scope="module")
def second(lab: Lab) -> Iterator[SecondController]:
    before = traces(lab)
    assert len(before["services"]) == 1  # type: ignore[arg-type]
    found = up_second_controller(lab)
    yield found
    # The one that was made last: another lab may have taken the addresses of the first.
    found = find_second_controller(lab) or found
    found.down()
    assert traces(lab) == before
    assert find_second_controller(lab) is None
    found.down()
    assert traces(lab) == before


def connects(address: str, *, seconds: float = 5.0, port: int = 389) -> bool:
    try:
        with socket.create_connection((address, port), timeout=seconds):
            return True
    except TimeoutError:
        return False


def answers(address: str, *, within: float = 60.0) -> bool:
    """Whether a controller answers a search, of which some are tried for so many seconds."""
    host = f"[{address}]" if ":" in address else address
    command = ["ldapsearch", "-x", "-o", "nettimeout=2", "-H", f"ldap://{host}", "-s", "base"]
    end = time.monotonic() + within
    while True:
        with suppress(subprocess.TimeoutExpired):
            found = subprocess.run(
                [*command, "-b", ""], capture_output=True, text=True, check=False, timeout=2
            )
            if found.returncode == 0:
                return True
        if time.monotonic() >= end:
            return False


def test_it_is_up_once(lab: Lab, second: SecondController) -> None:
    steps: list[str] = []
    assert up_second_controller(lab, progress=steps.append) == second
    assert steps == []
    assert (second.name, second.host) == ("dc2", "dc2.example.test")
    assert second.is_running()
    assert second.ipv6 == has_ipv6()


def test_dns_knows_both_wherever_it_is_asked(lab: Lab, second: SecondController) -> None:
    first = (lab.dc_address, lab.network.address6) if second.ipv6 else (lab.dc_address,)
    expected = {lab.dc_host: first, second.host: second.addresses}
    for nameserver in (None, lab.dc_address, *second.addresses):
        found = Locator(DnsResolver(nameserver=nameserver)).locate(lab.dns_domain)
        assert {one.host: one.addresses for one in found} == expected


def test_names_of_both_are_in_the_hosts_file(lab: Lab, second: SecondController) -> None:
    shown = subprocess.run(
        lab.exec_argv(["getent", "ahosts", second.host]), capture_output=True, text=True, check=True
    ).stdout
    assert {line.split()[0] for line in shown.splitlines()} == set(second.addresses)


@pytest.fixture
def alone(
    lab: Lab, second: SecondController, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AgentKrb5Conf:
    """Kerberos that knows no KDC but the second controller's; a logon empties the cache."""
    conf = AgentKrb5Conf(tmp_path / "krb5.conf")
    conf.set_kdcs(lab.realm, [second.address])
    monkeypatch.setenv("KRB5_CONFIG", str(tmp_path / "krb5.conf"))
    return conf


@pytest.mark.parametrize("transport", list(Transport))
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_password_is_read_there_and_a_ticket_got(
    lab: Lab,
    second: SecondController,
    alone: AgentKrb5Conf,
    transport: Transport,
    family: socket.AddressFamily,
) -> None:
    if family is socket.AF_INET6 and not second.ipv6:
        pytest.skip("this machine has no IPv6")
    address = second.addresses[family is socket.AF_INET6]
    alone.set_kdcs(lab.realm, [address])
    MachineKeytab(lab.host_keytab).log_on()
    controller = DomainController(second.host, (address,))
    connection = Connection.open(controller, transport, ca_file=lab.directory / "ca.pem")
    facts = read_domain_facts(connection)
    account, password = read_managed_password(connection, facts, "WebApp01")
    connection.close()
    ticket = ticket_from_managed_password(account.account_name, facts.realm, password)
    assert ticket.principal == f"WebApp01$@{lab.realm}"
    first = Connection.open(DomainController(lab.dc_host, (lab.dc_address,)))
    assert read_managed_password(first, facts, "WebApp01")[1].current == password.current
    first.close()


def test_it_serves_the_domain_without_the_first(
    lab: Lab, second: SecondController, alone: AgentKrb5Conf
) -> None:
    lab.stop_dc()
    try:
        found = Locator(DnsResolver()).locate(lab.dns_domain)
        assert [one.host for one in found] == [second.host]
        MachineKeytab(lab.host_keytab).log_on()
        Connection.open(found[0]).close()
    finally:
        lab.start_dc()


def test_what_is_made_at_the_first_is_known_at_the_second(
    lab: Lab, second: SecondController
) -> None:
    lab.samba_tool("user", "create", "bob", "--random-password")
    try:
        second.replicate()
        listed = ["samba-tool", "user", "list", *second.database]
        shown = subprocess.run(listed, capture_output=True, text=True, check=True).stdout
        assert "bob" in shown.split()
    finally:
        lab.samba_tool("user", "delete", "bob")


def test_stopped_it_refuses_connections(lab: Lab, second: SecondController) -> None:
    second.stop()
    try:
        assert not second.is_running()
        for address in second.addresses:
            with pytest.raises(ConnectionRefusedError):
                connects(address)
        assert answers(lab.dc_address)
    finally:
        second.start()
    assert all(answers(address) for address in (second.address, lab.dc_address))


def test_paused_it_takes_connections_and_never_answers(lab: Lab, second: SecondController) -> None:
    second.pause()
    try:
        assert second.is_running()
        assert connects(second.address)
        assert not answers(second.address, within=0)
        assert answers(lab.dc_address)
    finally:
        second.resume()
    assert answers(second.address)


def test_cut_off_it_is_silent_to_all(lab: Lab, second: SecondController) -> None:
    search = ["ldapsearch", "-x", "-H", f"ldap://{second.address}", "-s", "base", "-b", ""]

    def reached_by_first(seconds: int) -> bool:
        command = ["ip", "netns", "exec", lab.network.namespace, "timeout", str(seconds), *search]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    assert reached_by_first(60)
    second.cut_off()
    try:
        assert second.is_running()
        for address in second.addresses:
            try:
                assert not connects(address)
            except OSError as error:
                assert not isinstance(error, ConnectionRefusedError)
        assert not reached_by_first(2)
        assert answers(lab.dc_address)
    finally:
        second.reconnect()
    assert all(answers(address) for address in second.addresses)
    assert reached_by_first(60)
    second.reconnect()
    assert answers(second.address)


def test_delayed_it_answers_late(lab: Lab, second: SecondController) -> None:
    def seconds_of(address: str) -> float:
        begin = time.monotonic()
        assert connects(address)
        return time.monotonic() - begin

    def least(address: str) -> float:
        return min(seconds_of(address) for _ in range(20))

    for milliseconds in (300, 100):
        second.delay(milliseconds)
        try:
            for address in second.addresses:
                assert milliseconds / 1000 <= seconds_of(address)
            # Of several tries, of which this machine may hold up each.
            assert least(lab.dc_address) < milliseconds / 1000
            assert answers(second.address)
        finally:
            second.delay(0)
        assert least(second.address) < milliseconds / 1000


def test_one_that_fails_halfway_leaves_nothing(
    lab: Lab, second: SecondController, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the way back from every state: it goes down cut off, delayed and frozen."""
    second.delay(100)
    second.cut_off()
    second.pause()
    second.down()
    before = traces(lab)

    def fail(_: object) -> bool:
        raise CredspecError.of("test", "it fails here")

    with monkeypatch.context() as patched:
        patched.setattr(second_controller, "_is_known", fail)
        with pytest.raises(CredspecError, match="it fails here"):
            up_second_controller(lab)
    assert traces(lab) == before
    again = up_second_controller(lab)
    assert (again.host, again.is_running()) == (second.host, True)
    assert traces(lab)["mounts"] == before["mounts"]
