"""Records of volumes: what is written is read again, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from credspec.errors import CredspecError
from credspec.kubernetes.csi.volume_records import VolumeRecord, VolumeRecords
from credspec.kubernetes.csi.volume_request import FileOptions, Pod

RECORD = VolumeRecord(
    volume_id="csi-0123",
    target=Path("/var/lib/kubelet/pods/u/mount"),
    pod=Pod(namespace="shop", name="web-0", uid="u", service_account="web"),
    spec_name="webapp01",
    options=FileOptions(uid=1000, gid=2000, mode=0o640, is_read_only=True),
    document="d",
    asked=12.5,
)


@pytest.fixture
def records(tmp_path: Path) -> VolumeRecords:
    found = VolumeRecords(tmp_path / "csi")
    found.open()
    return found


def test_only_root_reads_them(records: VolumeRecords, tmp_path: Path) -> None:
    records.write(RECORD)
    assert records.get(RECORD.lease_id) == RECORD
    assert list(records.all()) == [RECORD]
    (path,) = (tmp_path / "csi").iterdir()
    assert (path.parent.stat().st_mode & 0o7777, path.stat().st_mode & 0o7777) == (0o700, 0o600)


def test_other_files_are_left_alone_but_for_what_was_not_written_whole(
    records: VolumeRecords, tmp_path: Path
) -> None:
    records.write(RECORD)
    others = ["other", "x.json", f"{RECORD.lease_id}.json~", f"{RECORD.lease_id.upper()}.JSON"]
    for name in (*others, ".credspec-0123456789abcdef"):
        (tmp_path / "csi" / name).write_text("{}")
    records.open()
    assert list(records.all()) == [RECORD]
    records.remove(RECORD.lease_id)
    records.remove(RECORD.lease_id)
    assert sorted(path.name for path in (tmp_path / "csi").iterdir()) == sorted(others)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("document", None),
        ("document", 1),
        ("asked", None),
        ("asked", "12.5"),
        ("target", 1),
        ("target", None),
        ("pod", None),
        ("pod", {"namespace": "shop"}),
        ("options", []),
        ("options", {"uid": 0, "gid": 0, "mode": 0, "other": 0}),
        ("volume_id", "csi-4567"),
        ("other", ""),
    ],
)
def test_a_record_with_a_damaged_member_is_not_read(
    records: VolumeRecords, tmp_path: Path, member: str, value: object
) -> None:
    records.write(RECORD)
    path = tmp_path / "csi" / f"{RECORD.lease_id}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {member: value}))
    assert records.get(RECORD.lease_id) is None
    assert list(records.all()) == []


def test_a_directory_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    records = VolumeRecords(tmp_path / "missing" / "csi")
    for write in (records.open, lambda: records.write(RECORD)):
        with pytest.raises(CredspecError, match=r"No such file or directory \[csi-record\]"):
            write()
