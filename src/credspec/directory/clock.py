"""The clock of a domain controller, read without a logon (rootDSE, MS-ADTS 3.1.1.3.2.4)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from credspec.directory.connection import Connection, Transport
from credspec.directory.locator import DomainController
from credspec.errors import CredspecError

MAX_SKEW: Final = timedelta(minutes=5)
"""How far the clocks of client and service may be apart (RFC 4120 8.2, and Windows' default)."""


def read_controller_time(
    controller: DomainController, transport: Transport, *, ca_file: Path | None = None
) -> datetime:
    """Return the controller's UTC time, in whole seconds.

    Raises:
        UnreachableError: as `Connection.open`.
        CredspecError: `clock-missing` if the controller does not tell.
    """
    connection = Connection.open(controller, transport, ca_file=ca_file, anonymous=True)
    try:
        found = connection.search("", "(objectClass=*)", ("currentTime",), subtree=False)
    finally:
        connection.close()
    values = found[0].get("currenttime") if found else None
    try:
        text = (values or [b""])[0].decode("ascii")
        return datetime.strptime(text, "%Y%m%d%H%M%S.0Z").replace(tzinfo=UTC)
    except ValueError:
        raise CredspecError.of(
            "clock-missing",
            "the domain controller did not return its currentTime",
            where=f"clock of {controller.host}",
        ) from None
