from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from credspec.shim.image_root import KRB5_CONF, ImageRoot
from support.machine.open_files import opened_below

NEW, OLD = b"\x7fELF\0default_rcache_name\0", b"\x7fELF\0dns_fallback\0"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "bundle/rootfs/etc").mkdir(parents=True)
    return tmp_path / "bundle"


def look(
    bundle: Path,
    *mounts: str,
    path: str = "rootfs",
    is_engines: bool = False,
    ask: Callable[[ImageRoot], bool] = ImageRoot.offer_krb5_conf,
) -> bool:
    config: dict[str, Any] = {
        "root": {"path": path},
        "mounts": [{"destination": destination} for destination in mounts],
    }
    with ImageRoot(config, str(bundle), is_engines=is_engines) as root:
        answer = ask(root)
    assert opened_below(bundle) == []
    return answer


@pytest.mark.parametrize("mounts", [[], ["/proc", "/etc/hosts", "/etcetera", "/etc/krb5.conf.d"]])
def test_where_there_is_none_it_is_the_leases(bundle: Path, mounts: list[str]) -> None:
    link = bundle / "rootfs/etc/krb5.conf"
    for _ in range(2):  # a container that is started again
        assert look(bundle, *mounts)
        assert link.readlink() == Path(KRB5_CONF)


def _regular(path: Path) -> None:
    path.write_bytes(b"")


def _dangling(path: Path) -> None:
    path.symlink_to("/nowhere")


def _outwards(path: Path) -> None:
    path.symlink_to("../../../outside")


@pytest.mark.parametrize("make", [_regular, Path.mkdir, os.mkfifo, _dangling, _outwards])
def test_the_images_own_stays_whatever_it_is(bundle: Path, make: Callable[[Path], Any]) -> None:
    own = bundle / "rootfs/etc/krb5.conf"
    make(own)
    before = own.lstat()
    assert not look(bundle)
    assert own.lstat() == before
    assert not (bundle.parent / "outside").exists()


@pytest.mark.parametrize(
    "destination",
    ["/etc", "/etc/", "//etc", "etc", "/", "/etc/krb5.conf", "/usr/../etc", "/etc/./krb5.conf"],
)
def test_what_the_user_mounts_there_is_not_touched(bundle: Path, destination: str) -> None:
    assert not look(bundle, "/proc", destination)
    assert list((bundle / "rootfs/etc").iterdir()) == []


@pytest.mark.parametrize("target", ["{0}", "/", "../../outside", "/outside", "etc", "nowhere"])
def test_links_of_the_image_lead_nowhere_else(bundle: Path, target: str) -> None:
    outside = bundle.parent / "outside"
    outside.mkdir()
    etc = bundle / "rootfs/etc"
    etc.rmdir()
    etc.symlink_to(target.format(outside))
    look(bundle)
    assert list(outside.iterdir()) == []
    assert not Path("/krb5.conf").is_symlink()


def test_a_link_within_the_image_is_followed(bundle: Path) -> None:
    etc = bundle / "rootfs/etc"
    etc.rename(bundle / "rootfs/config")
    etc.symlink_to("/config")
    assert look(bundle)
    assert (bundle / "rootfs/config/krb5.conf").is_symlink()


def test_only_a_root_that_was_made_for_the_container(bundle: Path, tmp_path: Path) -> None:
    """With ``--rootfs`` it is a directory of the user's, or the host's own."""
    (tmp_path / "users/etc").mkdir(parents=True)
    users = str(tmp_path / "users")
    for path in (users, "../users", f"{bundle}/../users", f"{bundle}-2", "", "rootfs/nothing"):
        assert not look(bundle, path=path)
    assert not (tmp_path / "users/etc/krb5.conf").is_symlink()
    assert look(bundle, path=users, is_engines=True)
    assert not look(bundle, path="/", is_engines=True)
    assert not look(bundle, path=str(bundle / "rootfs/etc/krb5.conf"), is_engines=True)


@pytest.mark.parametrize("root", [None, "rootfs", [], {}, {"path": 7}, {"path": "a\0b"}])
def test_a_root_that_is_malformed_is_left_to_the_runtime(bundle: Path, root: object) -> None:
    with ImageRoot({"root": root}, str(bundle), is_engines=True) as found:
        assert not found.offer_krb5_conf()
        assert not found.reads_fallback()


def test_without_a_directory_or_leave_to_write_nothing_is_done(bundle: Path) -> None:
    (bundle / "rootfs/etc").rmdir()
    assert not look(bundle)
    (bundle / "rootfs/etc").write_text("a file")
    assert not look(bundle)
    # procfs, where nobody can make a file.
    assert not look(Path("/proc"), path="self")


def reads_fallback(bundle: Path) -> bool:
    return look(bundle, ask=ImageRoot.reads_fallback)


@pytest.mark.parametrize(
    ("files", "answer"),
    [
        ({}, True),
        ({"lib/libkrb5.so.3": NEW}, True),
        ({"usr/lib64/libkrb5.so.3": OLD}, False),
        ({"lib/libkrb5.so.3": NEW, "usr/local/lib/libkrb5.so.3": OLD}, False),
        ({"usr/lib/libkrb5.so.3": b""}, False),
        ({"usr/lib/libkrb5.so.2": OLD}, True),
        ({"lib": b"a file"}, True),
    ],
)
def test_whether_every_libkrb5_is_1_18_or_newer(
    bundle: Path, files: dict[str, bytes], answer: bool
) -> None:
    for name, data in files.items():
        path = bundle / "rootfs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    assert reads_fallback(bundle) is answer


def test_this_machines_own_libkrb5_is(bundle: Path) -> None:
    found = next(Path("/usr/lib").glob("*-linux-gnu/libkrb5.so.3"))
    (bundle / "rootfs/lib").mkdir()
    (bundle / "rootfs/lib/libkrb5.so.3").write_bytes(found.read_bytes())
    assert reads_fallback(bundle)


def test_links_to_a_library_stay_in_the_image(bundle: Path) -> None:
    root = bundle / "rootfs"
    (bundle.parent / "libkrb5.so.3").write_bytes(NEW)
    (root / "usr/lib").mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    library = root / "usr/lib/libkrb5.so.3"
    library.symlink_to("../../../../libkrb5.so.3")
    assert reads_fallback(bundle)  # there is none within
    (root / "libkrb5.so.3").write_bytes(OLD)
    assert not reads_fallback(bundle)


def test_special_and_huge_files_are_not_read(bundle: Path) -> None:
    (bundle / "rootfs/lib").mkdir()
    library = bundle / "rootfs/lib/libkrb5.so.3"
    os.mkfifo(library)
    assert not reads_fallback(bundle)
    library.unlink()
    with library.open("wb") as file:
        file.write(NEW)
        file.truncate(1 << 40)
    assert not reads_fallback(bundle)
