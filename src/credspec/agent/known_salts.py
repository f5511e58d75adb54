"""The salts that KDCs have taken for accounts' keys: of a name that an account may have no more."""

from __future__ import annotations

from collections.abc import Mapping

_MOST_VERSIONS = 4


class KnownSalts:
    """What is known of each account, by its sAMAccountName; salts are not secret.

    Several threads may call it: each call is one step.
    """

    def __init__(self) -> None:
        self._last: dict[str, str] = {}
        self._of_versions: dict[str, dict[int, str]] = {}

    def took(self, name: str, salt: str) -> None:
        """Take note of the salt that a KDC has just taken."""
        self._last[name.lower()] = salt

    def last(self, name: str) -> str | None:
        """Return the salt that a KDC took last, None if it is not known."""
        return self._last.get(name.lower())

    def of_versions(self, name: str, version: int) -> Mapping[int, str]:
        """Return the salts by key version number; `version` has just been taken with the last one.

        Of earlier versions they are known if this was called while those were in force.
        """
        last = self._last.get(name.lower())
        known = dict(self._of_versions.get(name.lower(), {}))
        if last is not None:
            known[version] = last
        newest = sorted(known)[-_MOST_VERSIONS:]
        self._of_versions[name.lower()] = found = {number: known[number] for number in newest}
        return found
