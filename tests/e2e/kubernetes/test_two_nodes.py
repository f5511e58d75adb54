"""Two nodes, each with its own agent; the second one has containerd 2, and loses its power."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from credspec.lab.domain import Lab
from support.kubernetes.chart import NAMESPACE, Chart
from support.kubernetes.cluster import IMAGE, NODE
from support.kubernetes.namespace import (
    DEFAULT,
    Namespace,
    asking,
    container,
    pod_spec,
    with_volume,
)
from support.kubernetes.second_node import NAME, SecondNode

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

DRAIN = ("--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=180s")
WEBAPP01 = DEFAULT.format(account="WebApp01")


@pytest.fixture(scope="module")
def second(lab: Lab, chart: Chart, shop: Namespace, client_image: bytes) -> Iterator[SecondNode]:
    """A second node, ready for pods with tickets."""
    found = SecondNode(lab, chart.cluster)
    try:
        found.connect()
        found.start(lambda engine: engine.import_image(client_image), chart.load_image)
        chart.wait_ready()
        chart.wait_registered(NAME)
        yield found
        chart.cluster.kubectl("drain", NAME, *DRAIN, seconds=190)
    finally:
        found.remove()
    chart.wait_ready()


DIRECTORIES = ("volumes", "csi", "leases")


def containers_on(chart: Chart, node: str) -> list[str]:
    return sorted(each["container"] for each in chart.status(node)["leases"])


def nothing_left_on(second: SecondNode, chart: Chart) -> None:
    def left() -> list[str]:
        return [
            str(path) for name in DIRECTORIES for path in (second.run_directory / name).iterdir()
        ]

    chart.cluster.wait("the end of its volumes", lambda: not left(), context=lambda: str(left()))
    chart.cluster.wait("the end of its leases", lambda: containers_on(chart, NAME) == [])


def deployment(shop: Namespace, replicas: int) -> dict[str, Any]:
    labels = {"app": "web"}
    main = container(line="sleep 3600")
    main["readinessProbe"] = {"exec": {"command": ["klist", "-s"]}, "periodSeconds": 1}
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels},
    }
    template = {
        "metadata": {"annotations": {"credspec.dev/gmsa": "webapp03"}, "labels": labels},
        "spec": pod_spec(main, topologySpreadConstraints=[spread]),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": shop.name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": template,
        },
    }


def nodes_of(shop: Namespace) -> list[str]:
    pods = shop.cluster.get("pods", "-n", shop.name, "-l", "app=web")["items"]
    return sorted(
        each["spec"]["nodeName"] for each in pods if "deletionTimestamp" not in each["metadata"]
    )


def rolled_out(shop: Namespace) -> None:
    options = ("deployment/web", "-n", shop.name, "--timeout=240s")
    shop.cluster.kubectl("rollout", "status", *options, seconds=260)


def test_pods_have_their_tickets_of_their_own_nodes_agent(
    shop: Namespace, chart: Chart, second: SecondNode
) -> None:
    shop.cluster.apply(with_volume("first", nodeName=NODE), with_volume("second", nodeName=NAME))
    shop.wait_for_tickets("first")
    shop.wait_for_tickets("second")
    assert containers_on(chart, NODE) == ["shop/first"]
    assert containers_on(chart, NAME) == ["shop/second"]
    assert second.containerd.version().startswith("2.")
    shop.clear()
    nothing_left_on(second, chart)


def test_with_containerd_2_each_way_gives_tickets(
    shop: Namespace, chart: Chart, second: SecondNode
) -> None:
    first = container("first", "klist")
    made = asking("web", nodeName=NAME, initContainers=[first])
    shop.cluster.apply(made)
    shop.wait_for_tickets("web")
    shop.cluster.wait("the first's", lambda: WEBAPP01 in shop.logs("web", "-c", "first"))
    shop.cluster.kubectl(
        *("debug", "web", "-n", shop.name, f"--image={IMAGE}", "--image-pull-policy=Never"),
        *("--profile=restricted", "--container=look", "--", "sh", "-c", "klist; sleep 3600"),
    )
    shop.cluster.wait(
        "the debug container's tickets", lambda: WEBAPP01 in shop.logs("web", "-c", "look")
    )
    shop.forbid("WebApp01")
    try:
        shop.cluster.wait("the end of its tickets", lambda: not shop.has_tickets("web"))
    finally:
        shop.allow("WebApp01")
    shop.wait_for_tickets("web")
    shop.clear()
    nothing_left_on(second, chart)


def test_each_node_reads_the_password_once_and_a_drain_moves_the_pods(
    shop: Namespace, chart: Chart, second: SecondNode
) -> None:
    shop.allow("WebApp03")
    before = chart.status(NAME)["acquisitions"]
    shop.cluster.apply(deployment(shop, 6))
    rolled_out(shop)
    assert nodes_of(shop) == [NODE] * 3 + [NAME] * 3
    assert chart.status(NAME)["acquisitions"] == before + 1
    shop.cluster.kubectl("drain", NAME, *DRAIN, seconds=190)
    try:
        rolled_out(shop)
        assert nodes_of(shop) == [NODE] * 6
        nothing_left_on(second, chart)
    finally:
        shop.cluster.kubectl("uncordon", NAME)
        shop.cluster.wait_for_node(NAME)


def test_replicas_of_the_webhook_are_spread_and_answer_on_both_nodes(
    shop: Namespace, chart: Chart, second: SecondNode
) -> None:
    del second
    deployment_name = ("deployment/credspec-webhook", "-n", NAMESPACE)
    shop.cluster.kubectl("rollout", "restart", *deployment_name)
    chart.wait_ready()
    pods = [shop.cluster.get("pod", name, "-n", NAMESPACE) for name in chart.webhooks()]
    assert sorted(each["spec"]["nodeName"] for each in pods) == [NODE, NAME]
    for number in range(4):
        shop.cluster.apply(asking(f"web{number}"))


def test_a_node_that_lost_its_power_gives_its_pods_their_tickets_again(
    shop: Namespace, chart: Chart, second: SecondNode
) -> None:
    shop.cluster.apply(with_volume("web", nodeName=NAME))
    shop.wait_for_tickets("web")
    before = shop.cluster.get("pod", "web", "-n", shop.name)["metadata"]["uid"]
    second.lose_power()
    second.start()
    shop.cluster.wait(
        "tickets after the start",
        lambda: restarts(shop) > 0 and shop.has_tickets("web"),
        context=lambda: shop.events("web"),
    )
    assert shop.cluster.get("pod", "web", "-n", shop.name)["metadata"]["uid"] == before
    assert containers_on(chart, NAME) == ["shop/web"]
    shop.clear()
    nothing_left_on(second, chart)


def test_a_pod_that_was_deleted_while_its_node_was_off_leaves_nothing(
    shop: Namespace, chart: Chart, second: SecondNode
) -> None:
    shop.cluster.apply(with_volume("web", nodeName=NAME))
    shop.wait_for_tickets("web")
    second.lose_power()
    shop.cluster.kubectl("delete", "pod", "web", "-n", shop.name, "--force", "--grace-period=0")
    second.start()
    chart.cluster.wait("its agent", lambda: is_up(chart))
    nothing_left_on(second, chart)


def is_up(chart: Chart) -> bool:
    try:
        return "leases" in chart.status(NAME)
    except (AssertionError, IndexError):
        return False


def restarts(shop: Namespace) -> int:
    status = shop.cluster.get("pod", "web", "-n", shop.name)["status"]
    return sum(each["restartCount"] for each in status.get("containerStatuses", []))
