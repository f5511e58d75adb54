from __future__ import annotations

import ipaddress
import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.lab import dns_records, domain_cache
from credspec.lab.dns_records import address_record, with_address
from credspec.lab.domain import Lab
from credspec.lab.domain_cache import CachedDomain, cached_domain
from credspec.lab.network import LabNetwork

SUBNET = ipaddress.IPv4Network("10.213.0.4/30")
ADDRESSES = st.ip_addresses(v=4).map(str)


def a_lab(directory: Path, realm: str = "A.TEST") -> Lab:
    (directory / "dc/etc").mkdir(parents=True)
    (directory / "dc/private/tls").mkdir(parents=True)
    (directory / "dc/private/tls/key.pem").write_text("made at the first start")
    (directory / "dc/etc/smb.conf").write_text(f"path = {directory}/data")
    return Lab(
        name=directory.name,
        realm=realm,
        netbios="A",
        network=LabNetwork.of(directory.name, SUBNET),
        directory=directory,
        run_directory=directory,
    )


@pytest.fixture(autouse=True)
def simulated_samba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domain_cache, "run_tool", lambda *_: "Version 4")
    monkeypatch.setattr(dns_records, "run_tool", lambda *_: "")


def fill(root: Path, lab: Lab, kind: str = "kind") -> None:
    with cached_domain(lab, kind, root=root) as slot:
        assert not slot.restore(lab)
        slot.begin(lab, ("dc", "not there"))
        slot.finish(lab)


def restored(root: Path, directory: Path, realm: str = "A.TEST", kind: str = "kind") -> bool:
    directory.mkdir()
    lab = Lab(
        name=directory.name,
        realm=realm,
        netbios="A",
        network=LabNetwork.of(directory.name, SUBNET),
        directory=directory,
        run_directory=directory,
    )
    with cached_domain(lab, kind, root=root) as slot:
        return slot.restore(lab)


def test_what_is_kept_comes_back_with_its_paths_changed(tmp_path: Path) -> None:
    fill(tmp_path / "cache", a_lab(tmp_path / "one"))
    assert restored(tmp_path / "cache", tmp_path / "two")
    two = tmp_path / "two"
    assert (two / "dc/etc/smb.conf").read_text() == f"path = {two}/data"
    assert (two / "dc/private/tls/key.pem").read_text() == "made at the first start"
    assert not restored(tmp_path / "cache", tmp_path / "other-realm", realm="B.TEST")
    assert not restored(tmp_path / "cache", tmp_path / "other-kind", kind="other")
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("seconds", [-60, domain_cache.LONGEST_AGE_SECONDS + 60])
def test_one_that_is_too_old_or_of_the_future_is_not_taken(tmp_path: Path, seconds: int) -> None:
    fill(tmp_path / "cache", a_lab(tmp_path / "one"))
    [record] = (tmp_path / "cache").glob("*/record.json")
    document = json.loads(record.read_text())
    record.write_text(json.dumps(document | {"made": time.time() - seconds}))
    assert not restored(tmp_path / "cache", tmp_path / "two")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"made": "x"}', '{"made": 1}', "null"])
def test_a_malformed_record_counts_as_none(tmp_path: Path, text: str) -> None:
    fill(tmp_path / "cache", a_lab(tmp_path / "one"))
    [record] = (tmp_path / "cache").glob("*/record.json")
    record.write_text(text)
    assert not restored(tmp_path / "cache", tmp_path / "two")


def test_a_domain_that_was_not_finished_is_not_offered(tmp_path: Path) -> None:
    lab = a_lab(tmp_path / "one")
    with cached_domain(lab, "kind", root=tmp_path / "cache") as slot:
        slot.begin(lab, ("dc",))
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]
    assert not restored(tmp_path / "cache", tmp_path / "two")


def test_a_directory_that_others_can_enter_is_not_used(tmp_path: Path) -> None:
    open_to_all, link = tmp_path / "open", tmp_path / "link"
    open_to_all.mkdir()
    open_to_all.chmod(0o755)
    link.symlink_to(tmp_path / "private", target_is_directory=True)
    (tmp_path / "private").mkdir(mode=0o700)
    for root in (open_to_all, link):
        lab = a_lab(tmp_path / f"lab-{root.name}")
        with cached_domain(lab, "kind", root=root) as slot:
            slot.begin(lab, ("dc",))
            slot.finish(lab)
        assert list(root.iterdir()) == []


def test_what_cannot_be_copied_is_forgotten(tmp_path: Path) -> None:
    fill(tmp_path / "cache", a_lab(tmp_path / "one"))
    (tmp_path / "two").mkdir()
    (tmp_path / "two/dc").write_text("a file is in the way")
    lab = a_lab(tmp_path / "three")
    [slot] = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    (tmp_path / "three/dc/etc").rename(tmp_path / "three/etc")
    (tmp_path / "three/dc/etc").write_text("a file is in the way")
    assert not CachedDomain(slot).restore(lab)
    assert not slot.exists()
    assert not (tmp_path / "three/dc").exists()


def test_the_variable_turns_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, expected in (
        ("", domain_cache.DEFAULT_DIRECTORY),
        ("off", None),
        ("/x/y", Path("/x/y")),
    ):
        monkeypatch.setitem(os.environ, domain_cache.VARIABLE, value)
        assert domain_cache.cache_directory() == expected


@given(ADDRESSES, ADDRESSES, ADDRESSES)
def test_only_records_of_the_old_address_change(old: str, new: str, other: str) -> None:
    assert with_address(address_record(old), old, new) == address_record(new)
    expected = new if other == old else other
    assert with_address(address_record(other), old, new) == address_record(expected)


@given(st.binary(max_size=64), ADDRESSES, ADDRESSES)
def test_what_is_no_address_stays(record: bytes, old: str, new: str) -> None:
    moved = with_address(record, old, new)
    assert len(moved) == len(record)
    assert moved[:24] == record[:24]
    if record[2:4] != b"\1\0":
        assert moved == record


def test_a_record_is_as_samba_stores_it() -> None:
    assert address_record("10.213.0.2").hex() == (
        "0400010005f0000001000000000003840000000000000000"  # [MS-DNSP] 2.3.2.2
        "0ad50002"
    )
