"""One cluster for a run, in which the chart is installed; only with `make test-kubernetes`.

A machine can have one cluster at a time, and its programs take a quarter of an hour to build.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from credspec.lab.domain import Lab
from support.agent.agent_process import AgentProcess
from support.kubernetes.chart import Chart
from support.kubernetes.cluster import Cluster
from support.kubernetes.namespace import Namespace
from support.kubernetes.programs import OF_A_CLUSTER, missing

BUILD = "PYTHONPATH=tests python -m support.kubernetes.programs builds them"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "CREDSPEC_TEST_KUBERNETES" in os.environ:
        # With a driver of their own on the node, which cannot be beside the chart's.
        items.sort(key=lambda each: "chart" in getattr(each, "fixturenames", ()))
        return
    left_out = [each for each in items if "cluster" in getattr(each, "fixturenames", ())]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [each for each in items if each not in left_out]


@pytest.fixture(scope="session")
def cluster(lab: Lab, client_image: bytes) -> Iterator[Cluster]:
    assert not missing(*OF_A_CLUSTER), f"not built: {', '.join(missing())}; {BUILD}"
    found = Cluster(lab, client_image)
    try:
        found.up()
        yield found
    finally:
        found.down()


@pytest.fixture(scope="session")
def host_agent(lab: Lab, cluster: Cluster) -> Iterator[AgentProcess]:
    """An agent of the node itself, whose leases are those of the runtime handler."""
    found = AgentProcess(lab, cluster.host_agent)
    found.start()
    yield found
    found.close()


@pytest.fixture(scope="session")
def chart(lab: Lab, cluster: Cluster) -> Chart:
    """The chart, installed as its README says."""
    found = Chart(lab, cluster)
    found.load_image()
    found.install()
    return found


@pytest.fixture(scope="session")
def shop(lab: Lab, chart: Chart) -> Namespace:
    """A namespace of users with the level `restricted`, who may use two accounts."""
    found = Namespace(lab, chart.cluster)
    for account in ("WebApp01", "WebApp02"):
        found.allow(account)
    return found


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test, what runs is deleted, and no volume, lease or pod directory is left."""
    yield
    if not {"shop", "other"} & set(request.fixturenames):
        return
    namespace: Namespace = request.getfixturevalue("shop")
    found: Chart = request.getfixturevalue("chart")
    namespace.clear()
    found.nothing_left()
