"""Packages are built and installed here: minutes, as root. `make test-packages` runs this."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from credspec.lab.domain import Lab
from support.machine.package_machine import (
    NEXT_VERSION,
    RELEASES,
    PackageMachine,
    base,
    built,
    machine,
)

Packages = dict[str, Path]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let what downloads come first: once the domain is up, its names of hosts replace ours."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(3600))
    items.sort(key=lambda item: "lab" in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session", params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def packages(release: str) -> Packages:
    return built(release).packages


@pytest.fixture(scope="session")
def prepared(request: pytest.FixtureRequest) -> None:
    """All that needs this machine's own names of hosts, which those of the domain replace."""
    modules = {getattr(item, "module", None) for item in request.session.items}
    for release in RELEASES:
        for more in {(), *(getattr(module, "MORE", ()) for module in modules)}:
            base(release, more)
        built(release)
        built(release, version=NEXT_VERSION)


@pytest.fixture(scope="session")
def lab(prepared: None, lab: Lab) -> Lab:
    return lab


@pytest.fixture
def boot(
    lab: Lab, release: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., PackageMachine]]:
    """Boots machines in the network of the lab's domain, joined to it if not told otherwise."""
    with ExitStack() as stack:

        def start(*, joined: bool = True, more: tuple[str, ...] = ()) -> PackageMachine:
            directory = tmp_path_factory.mktemp("machine")
            found = stack.enter_context(machine(release, directory, more))
            for name in ("resolv.conf", "hosts"):
                shutil.copy(lab.directory / name, found.root / "etc" / name)
            if joined:
                shutil.copy(lab.host_keytab, found.root / "etc/krb5.keytab")
                shutil.copy(lab.krb5_conf, found.root / "etc/krb5.conf")
            return found

        yield start
