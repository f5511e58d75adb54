"""Kills, outages and changes in a real cluster: pods that live keep what they may have."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest

from support.kubernetes.chart import NAMESPACE, Chart
from support.kubernetes.namespace import (
    Namespace,
    asking,
    container,
    pod,
    with_volume,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

# Says so for good if there was a moment without tickets.
WATCHED = "while klist -s; do sleep 0.05; done; echo lost at $(date); sleep 3600"
WEBHOOK = ("deployment/credspec-webhook", "-n", NAMESPACE)


@pytest.fixture
def web(shop: Namespace) -> Iterator[Namespace]:
    """A pod that watches its tickets, and may never have been without."""
    shop.cluster.apply(with_volume("web", line=WATCHED))
    shop.wait_for_tickets("web")
    yield shop
    assert "lost" not in shop.logs("web")
    assert shop.has_tickets("web")


@pytest.mark.parametrize("name", ["csi-driver", "agent"])
def test_kill_9_of_a_container_of_the_node(web: Namespace, chart: Chart, name: str) -> None:
    chart.kill(name)
    chart.wait_ready()
    web.cluster.apply(with_volume("second"))
    web.wait_for_tickets("second")
    assert chart.leases() == ["shop/second", "shop/web"]


def test_kill_9_of_the_kubelet(web: Namespace, chart: Chart) -> None:
    chart.cluster.stop("kubelet", signal.SIGKILL)
    chart.cluster.restart("kubelet")
    web.cluster.apply(with_volume("second"))
    web.wait_for_tickets("second")


def test_kill_9_of_all_at_once(web: Namespace, chart: Chart) -> None:
    chart.cluster.stop("kubelet", signal.SIGKILL)
    for name in ("agent", "csi-driver"):
        chart.kill_process(name)
    chart.cluster.restart("kubelet")
    chart.wait_ready()
    web.cluster.apply(with_volume("second"))
    web.wait_for_tickets("second")


def test_an_upgrade_while_a_pod_lives(web: Namespace, chart: Chart) -> None:
    before = chart.node_pod()
    chart.upgrade(agent__logFormat="text")
    assert chart.node_pod() != before
    web.cluster.apply(asking("second"))
    web.wait_for_tickets("second")


def test_pods_deleted_by_force_while_kubelet_and_driver_are_away(
    shop: Namespace, chart: Chart
) -> None:
    shop.cluster.apply(with_volume("web"))
    shop.wait_for_tickets("web")
    shop.cluster.stop("kubelet", signal.SIGKILL)
    chart.kill_process("csi-driver")
    shop.cluster.kubectl("delete", "pod", "web", "-n", shop.name, "--force", "--grace-period=0")
    shop.cluster.restart("kubelet")
    chart.wait_ready()
    chart.nothing_left()


def test_a_use_that_is_revoked_takes_the_tickets_until_it_is_granted(
    shop: Namespace, chart: Chart
) -> None:
    shop.cluster.apply(with_volume("web"))
    shop.wait_for_tickets("web")
    shop.forbid("WebApp01")
    shop.cluster.wait("the end of its tickets", lambda: not shop.has_tickets("web"))
    shop.cluster.wait("the event", lambda: "[csi-use-not-permitted]" in shop.events("web"))
    shop.cluster.wait("the end of its lease", lambda: chart.leases() == [])
    shop.allow("WebApp01")
    shop.wait_for_tickets("web")


def test_an_object_that_is_changed_gives_living_pods_the_new_account(shop: Namespace) -> None:
    shop.allow("WebApp02")
    (first,) = (each for each in shop.converted("WebApp01") if "credspec" in each)
    (second,) = (each for each in shop.converted("WebApp02") if "credspec" in each)
    changed = {**first, "credspec": second["credspec"]}
    shop.cluster.apply(with_volume("web"))
    shop.wait_for_tickets("web")
    shop.cluster.apply(changed)
    shop.wait_for_tickets("web", "WebApp02")
    shop.cluster.apply(first)
    shop.wait_for_tickets("web", "WebApp01")


def test_an_object_that_is_deleted_takes_the_tickets(shop: Namespace) -> None:
    shop.cluster.apply(with_volume("web"))
    shop.wait_for_tickets("web")
    shop.cluster.kubectl("delete", "gmsacredentialspec", "webapp01")
    shop.cluster.wait("the end of its tickets", lambda: not shop.has_tickets("web"))
    shop.cluster.wait("the event", lambda: "[kubernetes-spec-missing]" in shop.events("web"))
    shop.allow("WebApp01")
    shop.wait_for_tickets("web")


def test_while_the_webhook_is_away_only_pods_that_ask_for_it_wait(shop: Namespace) -> None:
    shop.cluster.kubectl("scale", *WEBHOOK, "--replicas=0")
    shop.cluster.kubectl("rollout", "status", *WEBHOOK)
    try:
        shop.cluster.wait("the end of the webhook", lambda: "failed calling webhook" in asked(shop))
        shop.cluster.apply(pod("plain", container(line="echo here; sleep 3600")))
        shop.cluster.wait("a pod that does not ask", lambda: "here" in shop.logs("plain"))
        shop.cluster.apply(with_volume("web"))
        shop.wait_for_tickets("web")
    finally:
        shop.cluster.kubectl("scale", *WEBHOOK, "--replicas=2")
        shop.cluster.kubectl("rollout", "status", *WEBHOOK, "--timeout=110s")
    shop.cluster.wait("the webhook", lambda: asked(shop) == "")
    shop.wait_for_tickets("asking")


def asked(shop: Namespace) -> str:
    found = shop.cluster.kubectl_result("apply", "-f", "-", data=json.dumps(asking("asking")))
    return "" if found.returncode == 0 else found.stderr


def test_while_the_api_server_is_away_pods_that_live_go_on(web: Namespace, chart: Chart) -> None:
    pid = chart.pid("agent")
    web.cluster.stop("kube-apiserver", signal.SIGKILL)
    # Longer than it takes until the driver asks again whether the pod may keep them.
    web.cluster.pause(30)
    web.cluster.restart("kube-apiserver")
    web.cluster.wait(
        "the API server", lambda: web.cluster.kubectl_result("get", "pods").returncode == 0
    )
    assert chart.pid("agent") == pid
    web.cluster.apply(with_volume("second"))
    web.wait_for_tickets("second")
