"""A lab's network: a namespace and a pair of virtual interfaces, nothing else of the host changed.

Containers on a Docker bridge reach it through the host, as they reach any other network.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import ipaddress
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from credspec.errors import CredspecError

_POOL: Final = ipaddress.IPv4Network("10.213.0.0/16")
_POOL6: Final = ipaddress.IPv6Network("fd00:213::/64")
_IPV6_DISABLED: Final = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")
_CONNECT_SECONDS: Final = 5.0
_RESERVE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class LabNetwork:
    """The names and addresses of a lab's network."""

    namespace: str
    host_interface: str
    host_address: str
    address: str

    @classmethod
    def of(cls, name: str, subnet: ipaddress.IPv4Network) -> LabNetwork:
        """Return the network of the lab `name` in a /30 `subnet`."""
        host, inside = subnet.hosts()
        return cls(*_names(name), str(host), str(inside))

    @property
    def host_address6(self) -> str:
        """The host's IPv6 address in this network, once `add_ipv6` was called."""
        return _ipv6(self.host_address)

    @property
    def address6(self) -> str:
        """The IPv6 address inside, once `add_ipv6` was called."""
        return _ipv6(self.address)

    def up(self) -> None:
        """Make the namespace and the interfaces.

        Raises:
            CredspecError: `lab-network`.
        """
        inside = ("-n", self.namespace)
        ip("netns", "add", self.namespace)
        ip(
            *("link", "add", self.host_interface, "type", "veth"),
            *("peer", "name", "eth0", "netns", self.namespace),
        )
        ip("addr", "add", f"{self.host_address}/30", "dev", self.host_interface)
        ip("link", "set", self.host_interface, "up")
        ip(*inside, "link", "set", "lo", "up")
        ip(*inside, "addr", "add", f"{self.address}/30", "dev", "eth0")
        ip(*inside, "link", "set", "eth0", "up")
        # Containers whose addresses are not masqueraded get their answers too.
        ip(*inside, "route", "add", "default", "via", self.host_address)

    def connect(self, other: LabNetwork) -> None:
        """Connect two labs' namespaces; the connection goes with either of them.

        Directly, since a host may drop what it would have to forward.

        Raises:
            CredspecError: `lab-network`.
        """
        # Of a former network of that name, which lasts for as long as anything holds its namespace.
        self.disconnect(other)
        ip(
            *("-n", self.namespace, "link", "add", other.host_interface, "type", "veth"),
            *("peer", "name", self.host_interface, "netns", other.namespace),
        )
        for near, far in ((self, other), (other, self)):
            inside = ("-n", near.namespace)
            interface = ("dev", far.host_interface)
            ip(*inside, "addr", "add", near.address, "peer", far.address, *interface)
            ip(*inside, "link", "set", far.host_interface, "up")

    def add_ipv6(self) -> None:
        """Give both ends of the network their IPv6 addresses; to do it again is fine.

        Raises:
            CredspecError: `lab-network`.
        """
        ip("addr", "replace", f"{self.host_address6}/126", "dev", self.host_interface, "nodad")
        inside = ("-n", self.namespace)
        ip(*inside, "addr", "replace", f"{self.address6}/126", "dev", "eth0", "nodad")

    def connect_ipv6(self, other: LabNetwork) -> None:
        """Let two namespaces that `connect` has connected reach each other by IPv6 as well.

        Raises:
            CredspecError: `lab-network`.
        """
        for near, far in ((self, other), (other, self)):
            peer = ("peer", far.address6, "dev", far.host_interface, "nodad")
            ip("-n", near.namespace, "addr", "replace", near.address6, *peer)

    def remove_ipv6(self) -> None:
        """Undo `add_ipv6`; what is not there is fine."""
        for where, address, interface in (
            ((), self.host_address6, self.host_interface),
            (("-n", self.namespace), self.address6, "eth0"),
        ):
            command = ["ip", *where, "addr", "del", f"{address}/126", "dev", interface]
            subprocess.run(command, capture_output=True, check=False)

    def is_connected(self, other: LabNetwork) -> bool:
        """Return whether `connect` has connected the two, and both are still there."""
        command = ["ip", "-n", self.namespace, "link", "show", other.host_interface]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def disconnect(self, other: LabNetwork) -> None:
        """Undo `connect`; what is not there is fine."""
        command = ["ip", "-n", self.namespace, "link", "del", other.host_interface]
        subprocess.run(command, capture_output=True, check=False)

    def down(self) -> None:
        """Remove what `up` made; what is not there is fine."""
        _remove(self.namespace, self.host_interface)


def remove_network(name: str) -> None:
    """Remove the network of that name, whatever its addresses; what is not there is fine."""
    _remove(*_names(name))


def has_ipv6() -> bool:
    """Return whether this machine has IPv6."""
    try:
        return _IPV6_DISABLED.read_text("ascii").strip() == "0"
    except OSError:
        return False


def connects(address: str, port: int) -> bool:
    """Return whether a TCP connection is taken."""
    try:
        with socket.create_connection((address, port), timeout=_CONNECT_SECONDS):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def reserved_subnet() -> Iterator[ipaddress.IPv4Network]:
    """Yield a /30 of the labs' pool that the host routes nowhere yet; nobody else gets it.

    Before the block ends, the network must be up, whose route says that the subnet is taken.

    Raises:
        CredspecError: `lab-network` if all are taken, or another lab's network takes a minute.
    """
    # A lock of this network namespace, whose routes they are; it ends with the process.
    lock = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        end = time.monotonic() + _RESERVE_SECONDS
        while not _try_lock(lock):
            if time.monotonic() > end:
                found = f"another lab's network was not up after {_RESERVE_SECONDS:.0f} s"
                raise CredspecError.of("lab-network", found, where="lab")
            time.sleep(0.05)
        yield _free_subnet()
    finally:
        os.close(lock)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _free_subnet() -> ipaddress.IPv4Network:
    routes = json.loads(ip("-j", "-4", "route", "show", "table", "all"))
    taken = []
    for route in routes:
        try:
            taken.append(ipaddress.IPv4Network(route["dst"], strict=False))
        except (KeyError, ValueError):
            continue  # "default" and the like
    for subnet in _POOL.subnets(new_prefix=30):
        if not any(subnet.overlaps(network) for network in taken):
            return subnet
    raise CredspecError.of("lab-network", f"no free subnet in {_POOL}", where="lab")


def ip(*arguments: str) -> str:
    """Run ``ip`` and return what it prints.

    Raises:
        CredspecError: `lab-network`.
    """
    result = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise CredspecError.of(
            "lab-network",
            f"ip {' '.join(arguments)}: {result.stderr.strip()}",
            where="lab",
            remedy="network namespaces need root and the package iproute2",
        )
    return result.stdout


def _names(name: str) -> tuple[str, str]:
    """Return the namespace and the host's interface of a network."""
    # An interface's name has 15 characters at most.
    short = hashlib.blake2s(name.encode(), digest_size=5).hexdigest()
    return f"credspec-{name}", f"cs{short}"


def _remove(namespace: str, host_interface: str) -> None:
    for arguments in (("link", "del", host_interface), ("netns", "del", namespace)):
        subprocess.run(["ip", *arguments], capture_output=True, check=False)


def _ipv6(address: str) -> str:
    """Return the IPv6 address that goes with an address of the pool."""
    offset = int(ipaddress.IPv4Address(address)) - int(_POOL.network_address)
    return str(_POOL6.network_address + offset)
