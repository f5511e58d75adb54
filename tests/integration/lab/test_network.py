"""Networks of labs that come and go, with the namespaces of a real kernel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from credspec.lab.domain import Lab
from credspec.lab.network import LabNetwork, reserved_subnet


@pytest.fixture
def networks(lab: Lab) -> Iterator[tuple[LabNetwork, LabNetwork]]:
    with ExitStack() as stack:
        made = []
        for name in (f"{lab.name}-near", f"{lab.name}-far"):
            with reserved_subnet() as subnet:
                network = LabNetwork.of(name, subnet)
                stack.callback(network.down)
                network.up()
            made.append(network)
        near, far = made
        yield near, far


def test_a_network_is_connected_again_while_something_holds_its_former_namespace(
    networks: tuple[LabNetwork, LabNetwork],
) -> None:
    near, far = networks
    near.connect(far)
    # As an agent or an engine does that still ends.
    with Path("/run/netns", far.namespace).open("rb"):
        far.down()
        assert near.is_connected(far)
        far.up()
        near.connect(far)
    assert near.is_connected(far)
    near.disconnect(far)
    assert not near.is_connected(far)
