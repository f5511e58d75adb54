"""What an uninstall leaves, and the plain manifests in place of the chart; the last file to run."""

from __future__ import annotations

import pytest
import yaml

from credspec.lab.domain import Lab
from support.kubernetes.chart import MANIFESTS, NAMESPACE, RUN, Chart
from support.kubernetes.namespace import Namespace, asking

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def uninstalled(chart: Chart) -> Chart:
    chart.uninstall()
    chart.cluster.kubectl("delete", "namespace", NAMESPACE, "--timeout=110s")
    return chart


def test_an_uninstall_leaves_nothing_but_credential_specs(uninstalled: Chart) -> None:
    cluster = uninstalled.cluster
    cluster.wait(
        "the end of the registration",
        lambda: "credspec.dev" not in cluster.kubectl("get", "csinode", "-o", "yaml"),
    )
    listed = cluster.kubectl("api-resources", "--verbs=list", "-o", "name").split()
    kinds = sorted(set(listed) - {"events", "events.events.k8s.io"})
    found = cluster.get(",".join(kinds), "--all-namespaces", "--ignore-not-found")["items"]
    left = [
        (each["kind"], each["metadata"]["name"])
        for each in found
        if "credspec" in each["metadata"]["name"] or "gmsa" in each["metadata"]["name"]
    ]
    assert left == [("CustomResourceDefinition", "gmsacredentialspecs.windows.k8s.io")]
    assert cluster.get("gmsacredentialspecs")["items"] != []
    directory = cluster.kubelet_directory
    assert list((directory / "plugins_registry").iterdir()) == []
    assert list((directory / "plugins").iterdir()) == []
    assert not RUN.exists()


def test_the_plain_manifests(lab: Lab, uninstalled: Chart) -> None:
    cluster = uninstalled.cluster
    text = cluster.kubectl("kustomize", str(MANIFESTS))
    # This cluster's paths are not those of most.
    text = text.replace("/var/lib/kubelet", str(cluster.kubelet_directory))
    objects = [each for each in yaml.safe_load_all(text) if each is not None]
    for each in objects:
        if each["kind"] == "DaemonSet":
            for volume in each["spec"]["template"]["spec"]["volumes"]:
                if volume["name"] == "keytab":
                    volume["hostPath"]["path"] = str(lab.host_keytab)
    cluster.apply(*objects)
    uninstalled.wait_ready()
    shop = Namespace(lab, cluster)
    shop.allow("WebApp01")
    shop.cluster.apply(asking("web"))
    shop.wait_for_tickets("web")
    shop.clear()
    cluster.kubectl("delete", "-f", "-", "--timeout=110s", data=yaml.safe_dump_all(objects))
