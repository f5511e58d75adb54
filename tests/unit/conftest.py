"""Unit tests know no domain, although a whole run has its lab's up all the while."""

from __future__ import annotations

import pytest

from support.servers.certificate_authority import Authority, make_authority

FROM_A_LAB = ("CREDSPEC_CONFIG", "CREDSPEC_LAB", "KRB5_CONFIG", "KRB5CCNAME", "DOCKER_CONFIG")


@pytest.fixture(autouse=True)
def without_a_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the variables of the lab from the test and from the programs that it starts."""
    for name in FROM_A_LAB:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("tls") / "ca")


@pytest.fixture(scope="session")
def other_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("tls") / "other")
