from __future__ import annotations

import ipaddress
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.errors import NotFoundError, UsageError
from credspec.lab import client_image, domain, provisioning
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
    network = LabNetwork.of(name, ipaddress.IPv4Network("10.213.0.4/30"))
    assert len(network.host_interface) <= 15
    assert (network.host_address, network.address) == ("10.213.0.5", "10.213.0.6")


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
