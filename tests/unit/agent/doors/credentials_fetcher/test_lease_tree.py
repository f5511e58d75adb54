from __future__ import annotations

from pathlib import Path

import pytest

from credspec.agent.doors.credentials_fetcher.lease_tree import LeaseTree
from credspec.errors import CredspecError

LEASE = "0123456789abcdef0123"


def test_a_lease_comes_and_goes(tmp_path: Path) -> None:
    tree = LeaseTree(tmp_path)
    path = tree.make(LEASE, "WebApp01")
    assert path == tmp_path / LEASE / "WebApp01"
    assert path.stat().st_mode & 0o777 == 0o755
    assert tree.make(LEASE, "WebApp01") == path
    other = tree.make(LEASE, "WebApp02")
    tree.write_metadata(LEASE, b"{}")
    assert (tmp_path / LEASE / f"{LEASE}_metadata.json").stat().st_mode & 0o777 == 0o644
    assert tree.read_metadata(LEASE) == b"{}"
    (path / "krb5cc").touch()
    tree.remove(LEASE, frozenset({"WebApp02"}))
    assert not path.exists()
    assert other.exists()
    assert tree.read_metadata(LEASE) == b"{}"
    assert tree.leases() == [LEASE]
    tree.remove(LEASE)
    assert list(tmp_path.iterdir()) == []
    tree.remove(LEASE)
    assert tree.read_metadata(LEASE) is None


@pytest.mark.parametrize("name", ["..", ".", "a/b", "", ".hidden", "a\0b", "a" * 65, "a\nb"])
def test_what_is_no_name_is_no_path(tmp_path: Path, name: str) -> None:
    tree = LeaseTree(tmp_path)
    with pytest.raises(ValueError, match="not a name"):
        tree.make(LEASE, name)
    with pytest.raises(ValueError, match="not a name"):
        tree.remove(name)
    assert not (tmp_path / LEASE).exists()


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "WebApp01").mkdir(parents=True)
    (outside / "WebApp01" / "file").touch()
    root = tmp_path / "tree"
    root.mkdir()
    (root / LEASE).symlink_to(outside)
    tree = LeaseTree(root)
    with pytest.raises(CredspecError, match="lease-tree-unwritable"):
        tree.make(LEASE, "WebApp01")
    with pytest.raises(CredspecError, match="lease-tree-unwritable"):
        tree.write_metadata(LEASE, b"{}")
    tree.remove(LEASE)
    assert (outside / "WebApp01" / "file").exists()
    (root / LEASE).unlink()
    tree.make(LEASE, "WebApp01").rmdir()
    (root / LEASE / "WebApp01").symlink_to(outside / "WebApp01")
    with pytest.raises(CredspecError, match="lease-tree-unwritable"):
        tree.make(LEASE, "WebApp01")
    tree.remove(LEASE)
    assert (outside / "WebApp01" / "file").exists()


def test_a_tree_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(CredspecError, match="lease-tree-missing"):
        LeaseTree(tmp_path / "none").check()
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(CredspecError, match="lease-tree-missing"):
        LeaseTree(tmp_path / "link").check()
    tmp_path.chmod(0o777)
    with pytest.raises(CredspecError, match="lease-tree-not-trusted"):
        LeaseTree(tmp_path).check()


def test_a_tree_on_a_disk_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "credspec.agent.doors.credentials_fetcher.lease_tree.is_tmpfs", lambda _: False
    )
    with pytest.raises(CredspecError, match=r"lease-tree-not-tmpfs") as caught:
        LeaseTree(tmp_path).check()
    assert "mount -t tmpfs" in str(caught.value)
