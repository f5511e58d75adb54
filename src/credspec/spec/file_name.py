"""Names of credential spec files, as ``New-CredentialSpec`` makes them."""

from __future__ import annotations

import re
from typing import Final

from credspec.errors import UsageError

_SUFFIX: Final = ".json"
_MAX_BYTES: Final = 240  # of the 255 that file systems allow: the rest is for the suffix
# What Windows forbids too, since the file may go there.
_FORBIDDEN: Final = re.compile(r'[\x00-\x1f\x7f-\x9f\ud800-\udfff/\\:*?"<>|]')


def default_file_name(net_bios_name: str, account_name: str) -> str:
    """Return the name of a spec that was given none, such as ``contoso_webapp01.json``."""
    account = account_name.rstrip("$")
    return f"{net_bios_name.lower()}_{account.lower()}{_SUFFIX}"


def valid_file_name(name: str) -> str:
    """Return `name` if it is that of a file, not a path.

    Raises:
        UsageError: `file-name-invalid`.
    """
    too_long = len(name.encode("utf-8", "surrogatepass")) > _MAX_BYTES
    if _FORBIDDEN.search(name) or not name.strip(". ") or too_long:
        raise UsageError.of(
            "file-name-invalid",
            f"{name[:80]!r} is not a file name",
            where="file name",
            expected="the name of a file in the spec directory, such as www.json",
            remedy="give a path with -Path",
        )
    return name


def with_json_suffix(name: str) -> str:
    """Return `name` ending in ``.json`` exactly once; an ending in other letter case stays."""
    return name if name.lower().endswith(_SUFFIX) else f"{name}{_SUFFIX}"
