"""The journal: one record for each lease, written before the lease has any effect.

It lives on tmpfs, as the leases themselves do: what a restart of the agent must know survives, and
a restart of the host, which ends all containers, forgets it. No record holds a secret.

Records are read by later and earlier versions: `FORMAT` changes when a reader that does not know a
new field would treat the lease wrongly. Within a format, fields it does not know are ignored.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from credspec.agent.leases.record import LEASE_ID, LeaseRecord
from credspec.agent.leases.record_reader import (
    FORMAT,
    TICKETS_FORMAT,
    RecordReader,
    record_text,
)
from credspec.errors import CredspecError
from credspec.file_replacement import remove_files, remove_unfinished, replace_file

__all__ = ["FORMAT", "MAX_RECORD_BYTES", "TICKETS_FORMAT", "Journal"]

MAX_RECORD_BYTES: Final = 32 * 1024
"""The longest record that is written or read."""

_USUAL_BYTES: Final = 2048
# Of runs of an agent before `replace_file` had a name of its own for what is unfinished.
_OLD_LEFTOVER: Final = ".new"
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Journal:
    """Records in a directory that only root can enter."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, record: LeaseRecord) -> None:
        """Write or replace a lease's record, atomically.

        Raises:
            CredspecError: `journal-unwritable`, `journal-record-too-long`.
        """
        path = self._path(record.lease_id)
        data = record_text(record)
        if len(data) > MAX_RECORD_BYTES:
            raise CredspecError.of(
                "journal-record-too-long",
                f"{len(data)} bytes for one lease",
                where=f"journal {self._directory}",
                expected=f"at most {MAX_RECORD_BYTES}",
                remedy="divide the accounts among several credential specs",
            )
        try:
            replace_file(path, data, mode=0o600)
        except OSError as error:
            raise self._unwritable(error) from None

    def remove(self, lease_id: str) -> None:
        """Remove a lease's record; one that is not there is fine.

        Raises:
            CredspecError: `journal-unwritable`.
        """
        try:
            self._path(lease_id).unlink(missing_ok=True)
        except OSError as error:
            raise self._unwritable(error) from None

    def remove_leftovers(self) -> None:
        """Remove what a run that was killed had begun to write; no run may be writing now."""
        remove_unfinished(self._directory)
        remove_files(self._directory, lambda name: name.endswith(_OLD_LEFTOVER))

    def records(self) -> Iterator[LeaseRecord | str]:
        """Return all records; of one that cannot be read, its lease id."""
        reader = RecordReader()
        # Plain names: paths of ten thousand records take longer to make and to sort than to read.
        for name in sorted(os.listdir(self._directory)):  # noqa: PTH208 - as above
            lease_id, _, suffix = name.partition(".")
            if suffix != "json" or not LEASE_ID.fullmatch(lease_id):
                continue
            try:
                record = reader.read(lease_id, _read(f"{self._directory}/{name}"))
            except Exception:  # noqa: BLE001 - whatever is in it, it costs this lease only
                yield lease_id
                continue
            yield record

    def _unwritable(self, error: OSError) -> CredspecError:
        return CredspecError.of(
            "journal-unwritable",
            error.strerror or str(error),
            where=f"journal {self._directory}",
            remedy="free space there, or make it writable (df, mount)",
        )

    def _path(self, lease_id: str) -> Path:
        if not LEASE_ID.fullmatch(lease_id):
            raise ValueError("not a lease id")
        return self._directory / f"{lease_id}.json"


def _read(path: str) -> bytes:
    fd = os.open(path, _OPEN)
    try:
        # Of most it is all, and memory for the longest would be filled and freed for each.
        data = os.read(fd, _USUAL_BYTES)
        if len(data) == _USUAL_BYTES:
            data += os.read(fd, MAX_RECORD_BYTES + 1 - _USUAL_BYTES)
    finally:
        os.close(fd)
    if len(data) > MAX_RECORD_BYTES:
        raise ValueError("too long")
    return data
