"""What the driver remembers of its volumes beyond its own life: a file for each, on the tmpfs.

Nothing that matters depends on a record: a volume's lease is found by the volume's id. A record
saves questions after a restart, and shows which volumes no kubelet will ask about any more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from credspec.errors import CredspecError
from credspec.file_replacement import remove_unfinished, replace_file
from credspec.kubernetes.csi.volume_request import FileOptions, Pod, VolumeRequest, lease_of

_NAME: Final = re.compile(r"([0-9a-f]{32})\.json")
_MOST_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeRecord:
    """A volume: what was asked for, and what became of it.

    `document` is a hash of the spec that its lease was made of, empty without a lease. `asked` is
    when the API server was last asked about it, in seconds of CLOCK_BOOTTIME.
    """

    volume_id: str
    target: Path
    pod: Pod
    spec_name: str
    options: FileOptions
    document: str = ""
    asked: float = 0.0

    @property
    def lease_id(self) -> str:
        """The id of the volume's lease."""
        return lease_of(self.volume_id)

    @property
    def is_granted(self) -> bool:
        """Whether there is a lease, as far as the driver knows."""
        return bool(self.document)

    def is_of(self, request: VolumeRequest) -> bool:
        """Return whether a request asks for just this volume."""
        return self == replace(record_of(request), document=self.document, asked=self.asked)


def record_of(request: VolumeRequest) -> VolumeRecord:
    """Return the record of a volume that is being asked for."""
    return VolumeRecord(
        volume_id=request.volume_id,
        target=request.target,
        pod=request.pod,
        spec_name=request.spec_name,
        options=request.options,
    )


class VolumeRecords:
    """The records in a directory that only root may enter. Calls block."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def open(self) -> None:
        """Make the directory, and remove what an earlier run had not written whole.

        Raises:
            CredspecError: `csi-record`.
        """
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from None
        remove_unfinished(self._directory)

    def get(self, lease_id: str) -> VolumeRecord | None:
        """Return the record of a volume, None if there is none that can be read."""
        with suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            with self._path(lease_id).open("rb") as file:
                record = _from_json(json.loads(file.read(_MOST_BYTES)))
            return record if record.lease_id == lease_id else None
        return None

    def all(self) -> Iterator[VolumeRecord]:
        """Return all records that can be read."""
        with suppress(OSError):
            for path in sorted(self._directory.iterdir()):
                match = _NAME.fullmatch(path.name)
                record = self.get(match[1]) if match else None
                if record is not None:
                    yield record

    def write(self, record: VolumeRecord) -> None:
        """Write a record, whole or not at all.

        Raises:
            CredspecError: `csi-record`.
        """
        values = asdict(record) | {"target": str(record.target)}
        try:
            replace_file(self._path(record.lease_id), json.dumps(values).encode(), mode=0o600)
        except OSError as error:
            raise self._unwritable(error) from None

    def remove(self, lease_id: str) -> None:
        """Remove a record; one that is gone is fine."""
        with suppress(OSError):
            self._path(lease_id).unlink(missing_ok=True)

    def _path(self, lease_id: str) -> Path:
        return self._directory / f"{lease_id}.json"

    def _unwritable(self, error: OSError) -> CredspecError:
        return CredspecError.of(
            "csi-record", error.strerror or str(error), where=str(self._directory)
        )


def _from_json(values: dict[str, Any]) -> VolumeRecord:
    if not isinstance(values["document"], str) or not isinstance(values["asked"], int | float):
        raise TypeError("not a record")
    return VolumeRecord(
        **values
        | {
            "target": Path(values["target"]),
            "pod": Pod(**values["pod"]),
            "options": FileOptions(**values["options"]),
        }
    )
