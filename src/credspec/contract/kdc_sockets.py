"""The sockets of a container's KDC, opened in its network namespace and passed to the agent.

The agent may enter no namespace. A socket keeps the one that it was made in, so what the agent
serves there is reached from there only. Standard library only.
"""

from __future__ import annotations

import _socket
import _thread
import errno
import os

from credspec.contract import c_library
from credspec.contract.agent_client import ask_agent
from credspec.contract.errors import ShimError

_OWN = "/proc/self/ns/net"
_LOOPBACK = "127.0.0.1"
_QUEUE = 128
_IP_FREEBIND = 15  # ip(7): the loopback may come up a moment later
_ATTEMPTS = 16


def serve_kdc(lease_id: str, agent_socket: str, namespace: str | None) -> None:
    """Have the agent serve a lease as the KDC in a network namespace.

    `namespace` is a path such as ``/proc/PID/ns/net``, None for that of this process.

    Raises:
        ShimError: `kdc-sockets`; as `ask_agent`.
    """
    try:
        tcp, udp = _opened(namespace)
    except OSError as error:
        raise ShimError(
            "kdc-sockets",
            f"network of the container ({namespace or 'own'}): {error.strerror}; tickets=broker "
            "needs a port of its loopback: use tickets=services, or look at the engine's log",
        ) from None
    try:
        path = f"/v1/leases/{lease_id}/kdc"
        ask_agent(agent_socket, "POST", path, None, descriptors=(tcp.fileno(), udp.fileno()))
    finally:
        tcp.close()
        udp.close()


def _opened(namespace: str | None) -> tuple[_socket.socket, _socket.socket]:
    if namespace is None or os.path.samefile(namespace, _OWN):
        return _pair()
    wanted = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _in_thread(wanted)
    finally:
        os.close(wanted)


def _in_thread(namespace: int) -> tuple[_socket.socket, _socket.socket]:
    """Open the pair in a thread that enters the network and ends there.

    There may be no way back: with rootless engines the own network belongs to a user namespace in
    which this process has no rights.
    """
    found: list[tuple[_socket.socket, _socket.socket] | OSError] = []
    lock = _thread.allocate_lock()
    lock.acquire()

    def enter() -> None:
        try:
            c_library.enter_network(namespace)
            found.append(_pair())
        except OSError as error:
            found.append(error)
        finally:
            lock.release()

    _thread.start_new_thread(enter, ())
    lock.acquire()
    [pair] = found
    if isinstance(pair, OSError):
        raise pair
    return pair


def _pair() -> tuple[_socket.socket, _socket.socket]:
    """Return a listening TCP socket and a UDP socket at the same free port of the loopback."""
    for attempt in range(_ATTEMPTS):
        tcp = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        udp = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
        try:
            for each in (tcp, udp):
                each.setsockopt(_socket.IPPROTO_IP, _IP_FREEBIND, 1)
            tcp.bind((_LOOPBACK, 0))
            udp.bind((_LOOPBACK, tcp.getsockname()[1]))
            tcp.listen(_QUEUE)
        except OSError as error:
            tcp.close()
            udp.close()
            if error.errno != errno.EADDRINUSE or attempt == _ATTEMPTS - 1:
                raise
        else:
            return tcp, udp
    raise AssertionError  # the last attempt returns or raises
