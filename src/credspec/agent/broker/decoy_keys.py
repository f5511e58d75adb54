"""The keys of leases' decoys, kept over restarts of the agent: programs hold decoys in memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from credspec.agent.leases.record import valid_id
from credspec.errors import CredspecError
from credspec.file_replacement import replace_file
from credspec.kerberos.kdc.encryption import EncryptionKey
from credspec.kerberos.keys import Enctype

_BYTES: Final = 32
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class DecoyKeys:
    """One file for each lease in a directory of root's on a tmpfs; they open nothing elsewhere."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._held: dict[str, EncryptionKey] = {}

    def of(self, lease_id: str) -> EncryptionKey:
        """Return the key of a lease, a new one if it has none.

        Raises:
            CredspecError: `decoy-key-unwritable`.
        """
        key = self._held.get(valid_id(lease_id)) or self._read(lease_id)
        if key is None:
            key = EncryptionKey.random()
            try:
                self._directory.mkdir(mode=0o700, exist_ok=True)
                replace_file(self._directory / lease_id, key.value, mode=0o600)
            except OSError as error:
                raise CredspecError.of(
                    "decoy-key-unwritable",
                    error.strerror or str(error),
                    where=str(self._directory),
                    remedy="free space there, or make it writable (df, mount)",
                ) from None
        self._held[lease_id] = key
        return key

    def forget(self, lease_id: str) -> None:
        """Remove the key of a lease; one that has none is fine."""
        self._held.pop(lease_id, None)
        (self._directory / valid_id(lease_id)).unlink(missing_ok=True)

    def _read(self, lease_id: str) -> EncryptionKey | None:
        try:
            fd = os.open(self._directory / lease_id, _OPEN)
        except OSError:
            return None
        try:
            value = os.read(fd, _BYTES + 1)
        finally:
            os.close(fd)
        if len(value) != _BYTES:
            return None
        return EncryptionKey(Enctype.AES256_CTS_HMAC_SHA1_96, value)
