"""`floor.c` as processes that stay: their libraries are loaded, as the agent's are."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from credspec.config.host import Config
from credspec.session.host_identity import MachineKeytab


def build(program: Path) -> None:
    """Compile it."""
    source = Path(__file__).with_name("floor.c")
    libraries = ["-lkrb5", "-lldap", "-llber"]
    subprocess.run(["gcc", "-O2", "-o", str(program), str(source), *libraries], check=True)


def plain_environment() -> dict[str, str]:
    """Return the environment without what the agent asks of allocators."""
    return {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}


class Floor:
    """One process of it; `command` ends with ``cold``, ``cold-once`` or ``held``."""

    def __init__(self, command: list[str], config: Config, keytab: Path, realm: str) -> None:
        domain = realm.lower()
        self._line, end = socket.socketpair()
        with end:
            self._process = subprocess.Popen(
                [
                    *(*command, str(config.keytab), MachineKeytab(config.keytab).name),
                    *(str(keytab), realm, f"ldap://dc1.{domain}"),
                    "DC=" + domain.replace(".", ",DC="),
                ],
                env=plain_environment(),
                stdin=end,
                stdout=end,
            )

    def acquire(self, accounts: Sequence[str]) -> None:
        """Let it get the tickets of accounts, one after another."""
        self._line.sendall("".join(f"{name}\n" for name in accounts).encode())
        lines = 0
        while lines < len(accounts):
            answer = self._line.recv(4096)
            if not answer:
                raise SystemExit("the floor ended")
            lines += answer.count(b"\n")

    def close(self) -> None:
        """End it."""
        self._line.close()
        self._process.wait()
