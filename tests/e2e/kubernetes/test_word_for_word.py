"""Each way of the documentation's pages, typed as it stands: by webhook, by a volume, not joined.

After the tests with a chart of their own, as the pages begin with a cluster that has none. Only
the names of domain and image are replaced, and helm is given this cluster's paths.
"""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from credspec.kubernetes.objects.examples import IMAGE as EXAMPLE_IMAGE
from credspec.lab.domain import Lab
from support.agent.agent_process import AgentProcess
from support.kubernetes.chart import NAMESPACE, Chart
from support.kubernetes.cluster import IMAGE
from support.kubernetes.manifests import definition_of_any_contents
from support.kubernetes.namespace import DEFAULT
from support.kubernetes.page import Page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

README = "packaging/helm/credspec/README.md"
WEBHOOK = "docs/runtimes/kubernetes.md"
VOLUMES = "docs/runtimes/kubernetes-csi.md"
RUNTIME = "docs/runtimes/containerd.md"
WEBAPP01 = DEFAULT.format(account="WebApp01")
MONITORS = definition_of_any_contents("monitoring.coreos.com", "podmonitors", "PodMonitor")


@pytest.fixture
def bare(chart: Chart) -> Iterator[Chart]:
    """A cluster without the chart and without users, before and after."""
    clear(chart)
    yield chart
    clear(chart)


def clear(chart: Chart) -> None:
    kubectl = chart.cluster.kubectl
    for namespace in ("shop", "default"):
        pods = ("pods", "--all", "-n", namespace)
        kubectl("delete", *pods, "--grace-period=1", "--timeout=110s")
    kubectl("delete", "namespace", "shop", "--ignore-not-found", "--timeout=170s", seconds=180)
    chart.helm("uninstall", "credspec", "--namespace", NAMESPACE, "--wait", "--ignore-not-found")
    kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=110s")
    kubectl("delete", "gmsacredentialspecs", "--all", "--ignore-not-found")
    # Only now, as helm could not remove objects that nobody knows.
    chart.cluster.delete(MONITORS)


def installed(page: Page, chart: Chart) -> None:
    page.type("kubectl create namespace credspec")
    chart.wait_ready()


def shows(page: Page, chart: Chart, *words: str, pod: str = "web", namespace: str = "shop") -> None:
    """Wait until the log of a pod has all the words."""

    def log() -> str:
        found = chart.cluster.kubectl_result("logs", pod, "-n", namespace)
        return found.stdout

    chart.cluster.wait(
        f"{words} of {pod}",
        lambda: all(word in log() for word in words),
        context=lambda: chart.cluster.events(pod, namespace) + log(),
    )


def klist(
    chart: Chart,
    pod: str = "web",
    namespace: str = "shop",
    *before: str,
    account: str = "WebApp01",
) -> None:
    """Wait until a pod has its tickets."""
    exec_klist = ("exec", pod, "-n", namespace, "--", *before, "klist")
    chart.cluster.wait(
        f"tickets in {pod}",
        lambda: DEFAULT.format(account=account) in chart.cluster.kubectl_result(*exec_klist).stdout,
        context=lambda: chart.cluster.events(pod, namespace),
    )


def test_the_readme_of_the_chart(lab: Lab, bare: Chart, tmp_path: Path) -> None:
    page = Page(README, lab, bare, tmp_path)
    installed(page, bare)
    page.type("credspec new WebApp01 --path webapp01.json")
    page.type("kubectl create namespace shop")
    page.save("apiVersion: v1\nkind: Pod", "web.yaml")
    page.type("kubectl apply -f web.yaml")
    shows(page, bare, WEBAPP01, "\n WebApp01$\n")
    assert page.left() == [
        "kubectl create secret generic ad-reader --namespace credspec \\",
        "kubectl create secret generic ad-reader --namespace credspec \\",
        "contoso.com:53 { forward . 10.0.0.10 10.0.0.11 }",
    ]


def test_the_page_of_the_webhook(lab: Lab, bare: Chart, tmp_path: Path) -> None:
    page = Page(WEBHOOK, lab, bare, tmp_path)
    installed(page, bare)
    page.run("credspec new WebApp01 --path webapp01.json; kubectl create namespace shop")
    objects = list(
        yaml.safe_load_all(
            page.type(
                "credspec convert webapp01.json --to kubernetes --name webapp01 --namespace shop"
            )
        )
    )
    assert [each["kind"] for each in objects] == [
        "GMSACredentialSpec",
        "Role",
        "RoleBinding",
        "Pod",
    ]
    example = objects.pop()
    bare.cluster.apply(*objects)
    for name, beginning in (
        ("web", "metadata:\n  annotations: {credspec.dev/gmsa: webapp01}"),
        ("windows", "spec:\n  os: {name: linux}"),
    ):
        part = yaml.safe_load(page.find(beginning))
        made = {"apiVersion": "v1", "kind": "Pod", "spec": {}, **part}
        made["metadata"] = {"name": name, "namespace": "shop", **part.get("metadata", {})}
        made["spec"]["containers"] = [{"name": "app", "image": IMAGE}]
        bare.cluster.apply(made)
        klist(bare, name)
    example["spec"]["containers"][0]["image"] = IMAGE
    bare.cluster.apply(example)
    klist(bare, "webapp01")
    assert "All is well" in page.type("credspec kubernetes check shop/web")

    *_, volume = yaml.safe_load_all(
        page.type("credspec convert webapp01.json --to kubernetes --name webapp01 --pod csi")
    )
    assert volume["spec"]["containers"][0]["image"] == EXAMPLE_IMAGE
    volume["spec"]["containers"][0]["image"] = IMAGE
    volume["metadata"] |= {"namespace": "shop", "name": "volume"}
    volume["spec"].pop("serviceAccountName", None)
    bare.cluster.apply(volume)
    klist(bare, "volume")

    page.save("apiVersion: admissionregistration.k8s.io/v1", "policy.yaml")
    page.run("kubectl apply -f policy.yaml")
    try:
        forbidden(bare, example, volume)
    finally:
        page.run("kubectl delete -f policy.yaml")
    page.type("kubectl patch secret credspec-webhook")
    monitored(page, bare)
    assert all(each.startswith("kubectl create secret generic ad-reader") for each in page.left())


def monitored(page: Page, chart: Chart) -> None:
    """Switch the metrics on as the page says, with a PodMonitor that no operator looks at."""
    chart.cluster.apply(MONITORS)
    chart.cluster.wait_for_definitions(MONITORS["metadata"]["name"])
    page.type("helm upgrade credspec packaging/helm/credspec")
    chart.wait_ready()
    assert len(chart.cluster.get("podmonitors", "-n", NAMESPACE)["items"]) == 2
    address = chart.cluster.get("pod", chart.node_pod(), "-n", NAMESPACE)["status"]["podIP"]
    ask = chart.cluster.in_network(["curl", "-sS", f"http://{address}:9477/metrics"])
    chart.cluster.wait(
        "the node's metrics",
        lambda: (
            "credspec_csi_agent_up 1.0"
            in subprocess.run(ask, capture_output=True, text=True, check=False).stdout
        ),
    )


def forbidden(chart: Chart, *pods: dict[str, object]) -> None:
    """Look whether the policy refuses pods by either way, until their namespace is labelled."""
    says = "pods of this namespace may not have a gMSA"

    def answer(pod: dict[str, object]) -> str:
        another = {**pod, "metadata": {**pod["metadata"], "name": "other"}}
        found = chart.cluster.kubectl_result(
            *("apply", "--dry-run=server", "-f", "-"), data=json.dumps(another)
        )
        return "" if found.returncode == 0 else found.stderr

    for each in pods:
        chart.cluster.wait("the refusal", lambda each=each: says in answer(each))
    handler = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "handler",
            "namespace": "shop",
            "annotations": {"credspec.dev/spec": "file://www.json"},
        },
        "spec": {"containers": [{"name": "app", "image": IMAGE}]},
    }
    assert says in answer(handler)
    handler["metadata"] = {"name": "handler", "namespace": "shop"}
    assert answer(handler) == ""
    klist(chart)  # pods that live keep what they have
    chart.cluster.kubectl("label", "namespace", "shop", "gmsa=allowed")
    for each in pods:
        chart.cluster.wait("that it may", lambda each=each: answer(each) == "")


def test_the_page_of_the_driver_alone(lab: Lab, bare: Chart, tmp_path: Path) -> None:
    page = Page(VOLUMES, lab, bare, tmp_path)
    page.run("kubectl create namespace credspec; kubectl create namespace shop")
    page.run(
        "kubectl label namespace credspec pod-security.kubernetes.io/enforce=privileged; "
        "helm install credspec packaging/helm/credspec --namespace credspec "
        "--set webhook.enabled=false"
    )
    bare.wait_nodes()
    page.run("credspec new WebApp01 --path www.json")
    page.type("kubectl create serviceaccount web")
    page.save("apiVersion: v1\nkind: Pod", "web.yaml")
    page.run("kubectl apply -f web.yaml")
    klist(bare)
    assert bare.cluster.kubectl("get", "mutatingwebhookconfigurations", "-o", "name") == ""
    # What the chart makes otherwise.
    page.save("apiVersion: storage.k8s.io/v1", "driver.yaml")
    page.run("kubectl apply --dry-run=server -f driver.yaml")
    assert page.left() == ["[policy]", 'credspec kubernetes csi-driver --node "$NODE_NAME"']


@pytest.fixture
def reader(lab: Lab) -> Iterator[tuple[str, str]]:
    """A user of the group that may read the password of WebApp02, with its own password."""
    name, password = "reader", secrets.token_urlsafe(24) + "aA1!"
    lab.samba_tool("user", "create", name, "--random-password")
    lab.samba_tool("user", "setpassword", name, f"--newpassword={password}")
    lab.samba_tool("group", "addmembers", "LabHosts", name)
    yield name, password
    lab.samba_tool("user", "delete", name)


@pytest.fixture(params=[README, WEBHOOK], ids=["readme", "page"])
def page(request: pytest.FixtureRequest, lab: Lab, bare: Chart, tmp_path: Path) -> Page:
    return Page(request.param, lab, bare, tmp_path)


@pytest.mark.parametrize("way", ["all", "each"])
def test_nodes_that_are_not_joined(
    lab: Lab, bare: Chart, page: Page, reader: tuple[str, str], way: str
) -> None:
    account = {"username": reader[0], "password": reader[1], "domainName": lab.dns_domain}
    for name, content in (("account.json", json.dumps(account)), ("password.txt", reader[1])):
        (page.directory / name).touch(mode=0o600)
        (page.directory / name).write_text(content)
    page.run("kubectl create namespace credspec; kubectl create namespace shop")
    page.run("kubectl label namespace credspec pod-security.kubernetes.io/enforce=privileged")
    mark = "--from-file=account=account.json" if way == "all" else "--from-literal=username=reader"
    (block,) = (each for each in page.blocks if mark in each)
    page.type(block)
    bare.wait_ready()
    assert "krb5.keytab" not in bare.in_agent("ls", "/etc")
    host = " --host-account credspec=kubernetes:ad-reader" if way == "each" else ""
    page.run(
        f"credspec new WebApp02 --path webapp02.json{host}; credspec convert webapp02.json "
        "--to kubernetes --name webapp02 --namespace shop --role | kubectl apply -f -"
    )
    bare.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "web",
                "namespace": "shop",
                "annotations": {"credspec.dev/gmsa": "webapp02"},
            },
            "spec": {"containers": [{"name": "app", "image": IMAGE}]},
        }
    )
    klist(bare, account="WebApp02")


def test_the_page_of_the_runtime_handler(
    lab: Lab, bare: Chart, host_agent: AgentProcess, tmp_path: Path
) -> None:
    """`credspec setup containerd` was run for the node before containerd was started."""
    specs = host_agent.directory / "specs"
    (specs / "www.json").write_bytes((specs / "one.json").read_bytes())
    page = Page(RUNTIME, lab, bare, tmp_path)
    page.save("apiVersion: node.k8s.io/v1", "web.yaml")
    page.run("kubectl apply -f web.yaml")
    klist(bare, "web", "default", "env", "KRB5CCNAME=/run/credspec/krb5cc")
    page.run("kubectl delete -f web.yaml --grace-period=1")
