"""The runtime handler under a kubelet: a RuntimeClass, and the spec in an annotation of the pod."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.agent.agent_process import AgentProcess
from support.kubernetes.chart import Chart
from support.kubernetes.namespace import DEFAULT, Namespace, container, pod

pytestmark = pytest.mark.timeout(1200)

WEBAPP01 = DEFAULT.format(account="WebApp01")


@pytest.fixture(scope="module")
def agent(chart: Chart, host_agent: AgentProcess) -> Iterator[AgentProcess]:
    """The node's agent, beside the one of the chart, whose value makes the RuntimeClass."""
    chart.upgrade(runtimeClass__create="true")
    yield host_agent
    chart.upgrade()


def asking(spec: str) -> dict[str, object]:
    other = container("other", "klist; stat -c %u /run/credspec/krb5cc; sleep 3600")
    other["securityContext"] |= {"runAsUser": 1234}
    first = container(line="klist; sleep 3600")
    annotations = {"credspec.dev/spec": f"file://{spec}.json"}
    return pod("web", first, other, annotations=annotations, runtimeClassName="credspec")


def test_each_container_has_its_own_copy(shop: Namespace, agent: AgentProcess) -> None:
    shop.cluster.apply(asking("one"))
    shop.cluster.wait(
        "the tickets",
        lambda: WEBAPP01 in shop.logs("web", "-c", "main"),
        context=lambda: shop.events("web"),
    )
    shop.cluster.wait("the other's", lambda: "1234" in shop.logs("web", "-c", "other"))
    assert WEBAPP01 in shop.logs("web", "-c", "other")
    assert len(agent.lease_containers()) == 2
    shop.clear()
    shop.cluster.wait("the end of its leases", lambda: agent.lease_containers() == [])


def test_a_spec_that_is_not_there_is_an_event_until_it_is(
    shop: Namespace, agent: AgentProcess
) -> None:
    shop.cluster.apply(asking("late"))
    shop.cluster.wait("the event", lambda: "[spec-file-unreadable]" in shop.events("web"))
    specs = agent.directory / "specs"
    (specs / "late.json").write_bytes((specs / "one.json").read_bytes())
    shop.cluster.wait("the tickets", lambda: WEBAPP01 in shop.logs("web", "-c", "main"))
