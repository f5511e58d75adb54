"""Names of credential spec files, as ``New-CredentialSpec`` makes them."""

from __future__ import annotations

from typing import Final

_SUFFIX: Final = ".json"


def default_file_name(net_bios_name: str, account_name: str) -> str:
    """Return the name of a spec that was given none, such as ``contoso_webapp01.json``."""
    account = account_name.rstrip("$")
    return f"{net_bios_name.lower()}_{account.lower()}{_SUFFIX}"


def with_json_suffix(name: str) -> str:
    """Return `name` ending in ``.json`` exactly once; an ending in other letter case stays."""
    return name if name.lower().endswith(_SUFFIX) else f"{name}{_SUFFIX}"
