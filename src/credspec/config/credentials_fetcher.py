"""The table ``[credentials_fetcher]`` of the configuration: credentials-fetcher's interface."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

from credspec.config.host_users import USERS
from credspec.config_table import PATH, Key, Kind, NotTakenError, Table

_OWNER: Final = re.compile(r"(\d{1,9}):(\d{1,9})")
_FILE_MODE: Final = re.compile(r"0?[46][046][046]")


def _owner(value: Any) -> tuple[int, int]:
    found = _OWNER.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise NotTakenError((value, '"UID:GID", in numbers'))
    return int(found[1]), int(found[2])


def _mode(value: Any) -> int:
    if not isinstance(value, str) or not _FILE_MODE.fullmatch(value):
        raise NotTakenError((value, 'a mode such as "0640"'))
    return int(value, 8)


_OWNER_KIND: Final = Kind('"UID:GID", in numbers', _owner, '"{0[0]}:{0[1]}"'.format)
_MODE_KIND: Final = Kind('a mode such as "0640"', _mode, '"{:04o}"'.format)


@dataclass(frozen=True, slots=True, kw_only=True)
class FetcherConfig:
    """Settings of credentials-fetcher's interface only.

    `owner` are user and group of the tickets; `uids` are the users other than root who may call,
    with any document that they bring.
    """

    table: ClassVar = Table(
        "credentials_fetcher",
        "For `credspec agent --grpc-compat` ([in place of "
        "credentials-fetcher](credentials-fetcher.md)).",
    )

    lease_tree: Annotated[
        Path, Key(kind=PATH, meaning="The directory of the tickets. Must be on a tmpfs.")
    ] = Path("/var/credentials-fetcher/krbdir")
    mode: Annotated[int, Key(kind=_MODE_KIND, meaning="Permissions of the tickets.")] = 0o600
    owner: Annotated[
        tuple[int, int], Key(kind=_OWNER_KIND, meaning="User and group that own the tickets.")
    ] = (0, 0)
    uids: Annotated[
        frozenset[int],
        Key(
            kind=USERS,
            name="users",
            meaning="Users other than root who may call the interface, with any document that "
            "they bring.",
            reloaded=True,
        ),
    ] = frozenset()

    @property
    def uid(self) -> int:
        """The user that owns the tickets."""
        return self.owner[0]

    @property
    def gid(self) -> int:
        """The group that owns the tickets."""
        return self.owner[1]
