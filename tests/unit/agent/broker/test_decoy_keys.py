"""Keys of decoys: there again after a restart, and gone with their leases."""

from __future__ import annotations

from pathlib import Path

import pytest

from credspec.agent.broker.decoy_keys import DecoyKeys
from credspec.errors import CredspecError, UsageError

LEASE, OTHER = "0" * 32, "1" * 32


def test_a_key_outlives_the_agent_and_not_the_lease(tmp_path: Path) -> None:
    directory = tmp_path / "decoys"
    keys = DecoyKeys(directory)
    key = keys.of(LEASE)
    assert keys.of(LEASE) is key
    assert keys.of(OTHER) != key
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / LEASE).stat().st_mode & 0o777 == 0o600
    assert DecoyKeys(directory).of(LEASE) == key
    keys.forget(LEASE)
    keys.forget(LEASE)
    assert [path.name for path in directory.iterdir()] == [OTHER]
    assert DecoyKeys(directory).of(LEASE) != key


@pytest.mark.parametrize("content", [b"", b"short", bytes(33)])
def test_a_damaged_key_is_made_again(tmp_path: Path, content: bytes) -> None:
    (tmp_path / LEASE).write_bytes(content)
    key = DecoyKeys(tmp_path).of(LEASE)
    assert (tmp_path / LEASE).read_bytes() == key.value


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(bytes(32))
    (tmp_path / LEASE).symlink_to(tmp_path / "elsewhere")
    assert DecoyKeys(tmp_path).of(LEASE).value != bytes(32)
    assert (tmp_path / "elsewhere").read_bytes() == bytes(32)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CredspecError) as refused:
        DecoyKeys(tmp_path / "file").of(LEASE)
    assert refused.value.code == "decoy-key-unwritable"


@pytest.mark.parametrize("name", ["", "..", "../" + LEASE, LEASE.upper() + "X"])
def test_other_names_are_no_paths(tmp_path: Path, name: str) -> None:
    for call in (DecoyKeys(tmp_path).of, DecoyKeys(tmp_path).forget):
        with pytest.raises(UsageError):
            call(name)
