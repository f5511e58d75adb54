from __future__ import annotations

import ipaddress
import json
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.errors import CredspecError, NotFoundError, UsageError
from credspec.lab import client_image, domain, network, provisioning
from credspec.lab.namespaces import Plan, command_in
from credspec.lab.network import LabNetwork


@pytest.mark.parametrize("name", ["", "-", "a/b", "../x", "A", "a" * 21, "a b", "a\n", "ä"])
def test_names_that_are_no_labs(name: str) -> None:
    with pytest.raises(UsageError, match="lab-name-invalid"):
        domain.open_lab(name)
    with pytest.raises(UsageError, match="lab-name-invalid"):
        provisioning.up(name)


@pytest.mark.parametrize("realm", ["", "TEST", "A..B", "../X.Y", "A.B\n", "A B.C"])
def test_realms_that_are_none(realm: str) -> None:
    with pytest.raises(UsageError, match="lab-realm-invalid"):
        provisioning.up("unit", realm=realm)


def test_a_lab_that_was_never_up() -> None:
    with pytest.raises(NotFoundError, match="lab-not-found"):
        domain.open_lab("never-up")


@given(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?", fullmatch=True))
def test_interface_names_fit_the_kernel(name: str) -> None:
    found = LabNetwork.of(name, ipaddress.IPv4Network("10.213.0.4/30"))
    assert len(found.host_interface) <= 15
    assert (found.host_address, found.address) == ("10.213.0.5", "10.213.0.6")


def test_the_command_of_a_plan_is_a_vector() -> None:
    command = command_in(Plan(binds={"/etc/hosts": "/x y"}), ["sh", "-c", "echo; $(id)"])
    assert command[-4:] == ["--", "sh", "-c", "echo; $(id)"]


def test_the_image_holds_its_programs_and_their_libraries(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    with path.open("wb") as target:
        try:
            client_image.write_client_image(target)
        except UsageError as error:
            assert error.code == "lab-program-missing"  # a machine without the clients
            pytest.skip("the clients of the image are not installed")
    with tarfile.open(path) as tar:
        names = set(tar.getnames())
    assert {f"bin/{name}" for name in client_image.PROGRAMS} <= names
    assert any(name.startswith("lib") and "libkrb5.so" in name for name in names)
    assert any("libgssapiv2.so" in name for name in names)


def test_labs_that_are_brought_up_together_get_different_subnets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Simulated routes: the next lab must not look before the route of this one is there."""
    routes: list[str] = []
    monkeypatch.setattr(network, "ip", lambda *_: json.dumps([{"dst": dst} for dst in routes]))

    def bring_up(_: int) -> str:
        with network.reserved_subnet() as subnet:
            time.sleep(0.01)
            routes.append(str(subnet))
            return str(subnet)

    with ThreadPoolExecutor(8) as threads:
        subnets = list(threads.map(bring_up, range(16)))
    assert len(set(subnets)) == 16


def test_a_network_that_never_comes_up_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(network, "_RESERVE_SECONDS", 0.2)
    monkeypatch.setattr(network, "ip", lambda *_: "[]")
    with (
        network.reserved_subnet(),
        pytest.raises(CredspecError, match="lab-network"),
        network.reserved_subnet(),
    ):
        pass
    with network.reserved_subnet():
        pass
