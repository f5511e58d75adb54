"""`credspec kubernetes check` as an administrator runs it, in a real cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.kubernetes.chart import NAMESPACE, Chart
from support.kubernetes.namespace import Namespace, asking, container, pod, with_volume
from support.kubernetes.programs import path_of

pytestmark = pytest.mark.timeout(1200)

BIN = Path(sys.executable).parent


def check(shop: Namespace, *command: str) -> subprocess.CompletedProcess[str]:
    options = [f"--kubeconfig={shop.cluster.kubeconfig}", "--output=json"]
    environment = os.environ | {
        "PATH": f"{path_of('kubectl').parent}:{os.environ['PATH']}",
        "HOME": str(shop.cluster.directory),
    }
    return subprocess.run(
        [*command, f"{shop.name}/web", *options],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def first_cause(shop: Namespace) -> tuple[str | None, list[str]]:
    """The step that failed first, and the codes of what it found."""
    found = check(shop, str(BIN / "credspec"), "kubernetes", "check")
    document: dict[str, Any] = json.loads(found.stdout)
    assert (found.returncode == 0) == document["ok"], found.stderr
    codes = [each["code"] for step in document["steps"] for each in step["problems"]]
    return document["first_cause"], codes


def test_all_is_well_also_as_a_plug_in_of_kubectl(shop: Namespace) -> None:
    shop.cluster.apply(asking("web"))
    shop.wait_ready("web")
    assert first_cause(shop) == (None, [])
    found = check(shop, str(BIN / "kubectl-credspec"), "check")
    assert json.loads(found.stdout)["ok"] is True, found.stderr


def test_a_pod_that_names_none(shop: Namespace) -> None:
    shop.cluster.apply(pod("web", container()))
    assert first_cause(shop) == ("pod", ["kubernetes-pod-without-spec"])


def test_no_pod(shop: Namespace) -> None:
    assert first_cause(shop) == ("pod", ["kubernetes-pod-missing"])


def test_an_object_that_is_missing(shop: Namespace) -> None:
    shop.cluster.apply(with_volume("web", spec="nowhere"))
    cause, codes = first_cause(shop)
    assert (cause, codes[0]) == ("object", "kubernetes-spec-missing")


def test_a_right_that_is_missing(shop: Namespace) -> None:
    shop.forbid("WebApp01")
    try:
        shop.cluster.apply(with_volume("web"))
        cause, codes = first_cause(shop)
    finally:
        shop.allow("WebApp01")
    assert (cause, codes[0]) == ("rights", "kubernetes-use-forbidden")


def test_an_account_that_the_domain_does_not_have(shop: Namespace) -> None:
    (document, *rights) = shop.converted("WebApp01", "--role", "--name", "gone")
    accounts = document["credspec"]["ActiveDirectoryConfig"]["GroupManagedServiceAccounts"]
    for each in accounts:
        each["Name"] = "Gone"
    document["credspec"]["DomainJoinConfig"]["MachineAccountName"] = "Gone"
    shop.cluster.apply(document, *rights)
    shop.cluster.apply(with_volume("web", spec="gone"))
    shop.cluster.wait("the event", lambda: "FailedMount" in reasons(shop))
    cause, codes = first_cause(shop)
    assert (cause, codes) == (
        "volume",
        ["kubernetes-volume-failed", "kubernetes-node-check-failed"],
    )


def reasons(shop: Namespace) -> list[str]:
    found = shop.cluster.get("events", "-n", shop.name)["items"]
    return [each["reason"] for each in found if each["involvedObject"]["name"] == "web"]


def is_left_alone(shop: Namespace) -> bool:
    """Look whether the API server takes a pod that asks for tickets as it is."""
    command = ("apply", "--dry-run=server", "-o", "json", "-f", "-")
    found = shop.cluster.kubectl_result(*command, data=json.dumps(asking("probe")))
    return found.returncode == 0 and '"csi"' not in found.stdout


def test_the_webhook_without_an_authority(shop: Namespace, chart: Chart) -> None:
    """Somebody removed the webhook's Secret: what it says is what it cannot read."""
    shop.cluster.kubectl("scale", "deployment/credspec-webhook", "-n", NAMESPACE, "--replicas=0")
    configuration = "mutatingwebhookconfiguration/credspec-webhook"
    change = [{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]
    change.append({"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"})
    shop.cluster.kubectl("patch", configuration, "--type=json", f"-p={json.dumps(change)}")
    validating = "validatingwebhookconfiguration/credspec-webhook"
    shop.cluster.kubectl("patch", validating, "--type=json", f"-p={json.dumps(change[:1])}")
    try:
        shop.cluster.wait("that nobody is asked", lambda: is_left_alone(shop))
        shop.cluster.apply(asking("web"))
        assert first_cause(shop) == ("webhook", ["kubernetes-webhook-authority"])
    finally:
        shop.cluster.kubectl(
            "scale", "deployment/credspec-webhook", "-n", NAMESPACE, "--replicas=2"
        )
        chart.upgrade()
