"""Servers that the configuration names by their URL."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

HTTPS_PORT: Final = 443
"""The port of a URL that names none."""

_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST: Final = rf"(?=[^/:]{{1,253}}(?:[/:]|\Z)){_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]{{2,45}}\]"
_URL: Final = re.compile(rf"https://({_HOST})(?::([0-9]{{1,5}}))?(/[A-Za-z0-9._~/-]*)?")
_MAX_PORT: Final = 65535


class Server(NamedTuple):
    """A server: its name or address, and its port."""

    host: str
    port: int = HTTPS_PORT

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def server_url(text: str) -> tuple[Server, str] | None:
    """Return the server and the path of a URL of the configuration; None if it is not plain https.

    There is no user, query, fragment, percent-encoding or backslash in it.
    """
    match = _URL.fullmatch(text)
    if match is None:
        return None
    port = int(match[2] or HTTPS_PORT)
    if not 0 < port <= _MAX_PORT:
        return None
    return Server(match[1].strip("[]"), port), match[3] or ""
