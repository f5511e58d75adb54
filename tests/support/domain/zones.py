"""Further zones of a lab's name server, for tests."""

from __future__ import annotations

import time

from credspec.directory.dns_resolver import DnsResolver
from credspec.errors import UnreachableError
from credspec.lab.domain import Lab


def wait_until_served(lab: Lab, name: str) -> None:
    """Wait until the lab's name server has SRV records of a name in a zone that was just made.

    Samba's name server reloads its list of zones some time after the command has ended.
    """
    resolver = DnsResolver(5, nameserver=lab.dc_address)
    end = time.monotonic() + 60
    while True:
        try:
            if resolver.srv(name):
                return
        except UnreachableError as error:
            assert time.monotonic() < end, error
        assert time.monotonic() < end, name
        time.sleep(0.05)
