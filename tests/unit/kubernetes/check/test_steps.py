"""The first cause that ``credspec kubernetes check`` names, in simulated clusters."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from credspec.cli.kubernetes_check import check
from credspec.errors import NotPermittedError
from credspec.kubernetes.check import kubectl
from credspec.kubernetes.check.kubectl import Output
from credspec.kubernetes.check.steps import STEPS, Evidence, examine
from credspec.kubernetes.webhook.certificates import AUTHORITY_LIFE, renewed
from credspec.kubernetes.webhook.patch import patch_of_pod
from support.webhook.json_patch import applied
from support.webhook.reviews import gmsa

NOW = datetime(2026, 11, 26, tzinfo=UTC)
BUNDLE = base64.b64encode(renewed(None, ["a"], NOW).bundle).decode()


class SimulatedCluster:
    """A cluster in which all is well, until a test changes it."""

    def __init__(self) -> None:
        pod: dict[str, Any] = {
            "metadata": {"name": "web", "annotations": {"credspec.dev/gmsa": "webapp01"}},
            "spec": {"containers": [{"name": "app"}], "serviceAccountName": "sa"},
        }
        pod = applied(pod, patch_of_pod(pod).operations)
        pod["spec"]["nodeName"] = "node1"
        self.pod: dict[str, Any] | None = pod
        self.objects: dict[tuple[str, str], dict[str, Any]] = {
            ("gmsacredentialspecs.windows.k8s.io", "webapp01"): gmsa("webapp01"),
            ("csidrivers", "credspec.dev"): {},
            ("csinodes", "node1"): {"spec": {"drivers": [{"name": "credspec.dev"}]}},
        }
        self.node_pods = [
            {
                "metadata": {"namespace": "credspec", "name": "credspec-x"},
                "spec": {"nodeName": "node1"},
                "status": {"containerStatuses": [{"name": "agent", "ready": True}]},
            }
        ]
        self.bundle: str | None = BUNDLE
        self.is_allowed: bool | NotPermittedError = True
        self.events: list[dict[str, Any]] = []
        self.output = Output(0, "All is well.", "")
        self.given = ""

    def get(self, resource: str, name: str, namespace: str = "") -> dict[str, Any] | None:
        if resource == "pods":
            return self.pod if (namespace, name) == ("shop", "web") else None
        return self.objects.get((resource, name))

    def find(self, resource: str, namespace: str, *, labels: str = "") -> list[dict[str, Any]]:
        assert namespace == ""
        if resource == "pods":
            assert labels == "app.kubernetes.io/name=credspec-node"
            return self.node_pods
        if self.bundle is None:
            return []
        config = {"caBundle": self.bundle} if self.bundle else {}
        return [{"webhooks": [{"name": "pods.credspec.dev", "clientConfig": config}]}]

    def events_of(self, namespace: str, pod: str) -> list[dict[str, Any]]:
        assert (namespace, pod) == ("shop", "web")
        return self.events

    def may_use(self, namespace: str, account: str, name: str) -> bool:
        assert (namespace, account, name) == ("shop", "sa", "webapp01")
        if isinstance(self.is_allowed, bool):
            return self.is_allowed
        raise self.is_allowed

    def run_in(
        self, namespace: str, pod: str, container: str, command: Sequence[str], text: str
    ) -> Output:
        assert (namespace, pod, container) == ("credspec", "credspec-x", "agent")
        assert [*command] == ["credspec", "check", "-"]
        self.given = text
        return self.output


def examined(cluster: SimulatedCluster, now: datetime = NOW) -> dict[str, str]:
    """Return the state of each step, or the code of its error."""
    evidence = Evidence(view=cluster, namespace="shop", name="web", now=now)
    return {
        each.name: each.state if each.error is None else each.error.code
        for each in examine(evidence)
    }


def test_all_is_well_in_a_simulated_cluster() -> None:
    cluster = SimulatedCluster()
    assert examined(cluster) == {name: "ok" for name, _, _ in STEPS}
    assert json.loads(cluster.given) == gmsa("webapp01")["credspec"]


def without_volumes(cluster: SimulatedCluster) -> None:
    assert cluster.pod is not None
    del cluster.pod["spec"]["volumes"]


def change(cluster: SimulatedCluster, what: str) -> None:  # noqa: C901, PLR0912
    pod = cluster.pod
    assert pod is not None
    match what:
        case "no pod":
            cluster.pod = None
        case "asks for nothing":
            without_volumes(cluster)
            del pod["metadata"]["annotations"]
        case "misspelt":
            pod["metadata"]["annotations"]["credspec.dev/gsma"] = "a"
        case "no webhook":
            without_volumes(cluster)
            cluster.bundle = None
        case "no authority":
            without_volumes(cluster)
            cluster.bundle = ""
        case "older than the webhook":
            without_volumes(cluster)
        case "for Windows":
            without_volumes(cluster)
            pod["spec"]["nodeSelector"] = {"kubernetes.io/os": "windows"}
        case "no object":
            del cluster.objects["gmsacredentialspecs.windows.k8s.io", "webapp01"]
        case "an empty object":
            cluster.objects["gmsacredentialspecs.windows.k8s.io", "webapp01"] = gmsa(
                "webapp01", credspec=None
            )
        case "no right":
            cluster.is_allowed = False
        case "may not look":
            cluster.is_allowed = NotPermittedError.of("kubectl-forbidden", "no")
        case "no node":
            del pod["spec"]["nodeName"]
        case "no driver":
            cluster.node_pods = []
        case "no CSIDriver":
            del cluster.objects["csidrivers", "credspec.dev"]
        case "not registered":
            cluster.objects["csinodes", "node1"] = {"spec": {"drivers": None}}
        case "not ready":
            cluster.node_pods[0]["status"] = {"containerStatuses": [{"name": "agent"}]}
        case "refused on the node":
            message = "rpc error: code = PermissionDenied desc = no [policy-account]"
            cluster.events = [{"reason": "FailedMount", "message": message}]
        case "no domain":
            cluster.output = Output(4, "x\n\nFirst cause: dns, of 9 steps\n  found: nothing", "")


@pytest.mark.parametrize(
    ("what", "step", "code"),
    [
        ("no pod", "pod", "kubernetes-pod-missing"),
        ("asks for nothing", "pod", "kubernetes-pod-without-spec"),
        ("misspelt", "pod", "kubernetes-annotation-unknown"),
        ("no webhook", "webhook", "kubernetes-webhook-missing"),
        ("no authority", "webhook", "kubernetes-webhook-authority"),
        ("older than the webhook", "webhook", "kubernetes-pod-not-injected"),
        ("for Windows", "webhook", "kubernetes-pod-for-windows"),
        ("no object", "object", "kubernetes-spec-missing"),
        ("an empty object", "object", "kubernetes-object-empty"),
        ("no right", "rights", "kubernetes-use-forbidden"),
        ("may not look", "rights", "kubectl-forbidden"),
        ("no node", "node", "kubernetes-pod-not-scheduled"),
        ("no driver", "node", "kubernetes-driver-missing"),
        ("no CSIDriver", "node", "kubernetes-driver-missing"),
        ("not registered", "node", "kubernetes-driver-not-registered"),
        ("not ready", "node", "kubernetes-driver-not-ready"),
        ("refused on the node", "volume", "kubernetes-volume-failed"),
        ("no domain", "domain", "kubernetes-node-check-failed"),
    ],
)
def test_the_first_cause_in_a_simulated_cluster(what: str, step: str, code: str) -> None:
    cluster = SimulatedCluster()
    change(cluster, what)
    found = examined(cluster)
    first = next(name for name, state in found.items() if state not in {"ok", "skipped"})
    assert (first, found[first]) == (step, code)
    assert all(found[name] == "ok" for name in list(found)[: list(found).index(first)])


def test_an_authority_that_has_expired_is_found() -> None:
    cluster = SimulatedCluster()
    without_volumes(cluster)
    later = NOW + AUTHORITY_LIFE + timedelta(days=1)
    assert examined(cluster, later)["webhook"] == "kubernetes-webhook-authority"


def test_the_command_says_the_first_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = SimulatedCluster()
    made: list[Any] = []

    def simulated(options: Sequence[str]) -> SimulatedCluster:
        made.append([*options])
        return cluster

    monkeypatch.setattr(kubectl, "Kubectl", simulated)
    run: Callable[..., Any] = CliRunner().invoke
    assert run(check, ["shop/web", "--context", "c"]).exit_code == 0
    assert made == [["--context=c"]]
    cluster.is_allowed = False
    result = run(check, ["web", "-n", "shop"])
    assert result.exit_code == 5
    assert "First cause: rights" in result.output
    document = json.loads(run(check, ["shop/web", "--output", "json"]).output)
    assert document["first_cause"] == "rights"
    assert document["steps"][3]["problems"][0]["code"] == "kubernetes-use-forbidden"


HOSTILE = st.text(st.characters(categories=["Cc", "Cf", "Zl", "Zp", "Cs", "L"]), max_size=40)


@settings(max_examples=60, deadline=None)
@given(st.lists(HOSTILE, min_size=8, max_size=8), st.booleans(), st.booleans())
def test_no_text_of_the_cluster_forges_a_line_or_moves_the_cursor(
    texts: list[str], is_ready: bool, is_mounted: bool
) -> None:
    """Of the pod, the driver's pod, events, what the agent printed, and kubectl's errors."""
    account, node, name, container, message, printed, failed, refusal = texts

    real = kubectl.Kubectl()

    class Hostile(SimulatedCluster):
        def may_use(self, *_: str) -> bool:
            if refusal:
                raise real._failed(Output(1, "", f"{refusal}(Forbidden)"))
            return True

        def run_in(self, *_: Any) -> Output:
            return self.output

    cluster = Hostile()
    assert cluster.pod is not None
    cluster.pod["spec"] |= {"serviceAccountName": account, "nodeName": node}
    cluster.objects["csinodes", node] = {"spec": {"drivers": [{"name": "credspec.dev"}]}}
    cluster.node_pods[0] = {
        "metadata": {"namespace": "credspec", "name": name},
        "spec": {"nodeName": node},
        "status": {"containerStatuses": [{"name": container, "ready": is_ready}]},
    }
    if not is_mounted:
        cluster.events = [{"reason": "FailedMount", "message": message}]
    cluster.output = Output(len(failed), printed, failed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("credspec.kubernetes.check.kubectl.Kubectl", lambda _: cluster)
        shown = CliRunner().invoke(check, ["shop/web"])
    assert shown.exception is None or isinstance(shown.exception, SystemExit)
    lines = shown.output.split("\n")
    assert all(line.isprintable() for line in lines)
    assert len(lines) == len(STEPS) + 3  # an empty one, the first cause, and the end


@pytest.mark.parametrize("arguments", [["a/b/c"], ["A/b"], ["-n", "x", "shop/web"], ["shop/"]])
def test_a_name_that_is_none_is_refused(arguments: list[str]) -> None:
    result = CliRunner().invoke(check, arguments)
    assert "kubernetes-pod-name" in str(result.exception)
