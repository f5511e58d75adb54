"""Pods of a real cluster in which the Helm chart is installed, by each of the ways to ask."""

from __future__ import annotations

import pytest

from credspec.kubernetes.objects.examples import role, role_binding
from support.kubernetes.chart import Chart
from support.kubernetes.cluster import IMAGE
from support.kubernetes.namespace import (
    DEFAULT,
    Namespace,
    asking,
    container,
    pod,
    pod_spec,
    windows_options,
    with_volume,
)

pytestmark = pytest.mark.timeout(1200)

WEBAPP01 = DEFAULT.format(account="WebApp01")
LOGON = (
    "klist && ldapwhoami -Q -H ldap://dc1.example.test && psql 'host=db.example.test"
    " user=WebApp01$ dbname=demo gssencmode=require' -Atc 'select current_user' && sleep 3600"
)


@pytest.mark.parametrize("way", ["webhook", "csi"])
def test_three_objects_and_the_pod_is_logged_on(shop: Namespace, way: str) -> None:
    objects = shop.converted("WebApp01", "--role", "--pod", way)
    assert [each["kind"] for each in objects] == [
        "GMSACredentialSpec",
        "Role",
        "RoleBinding",
        "Pod",
    ]
    (main,) = objects[-1]["spec"]["containers"]
    main |= {"image": IMAGE, "imagePullPolicy": "Never", "command": ["sh", "-c", LOGON]}
    shop.cluster.apply(*objects)
    shop.cluster.wait(
        "the logons",
        lambda: "\nWebApp01$\n" in shop.logs("webapp01"),
        context=lambda: shop.events("webapp01") + shop.logs("webapp01"),
    )
    assert WEBAPP01 in shop.logs("webapp01")
    assert "u:EXAMPLE\\WebApp01$" in shop.logs("webapp01")
    assert shop.has_tickets("webapp01")  # by kubectl exec, which has the pod's variables


@pytest.mark.parametrize("os", [None, "linux"])
@pytest.mark.parametrize("level", ["pod", "container", "init"])
def test_the_field_of_windows_with_each_container_its_own(
    shop: Namespace, level: str, os: str | None
) -> None:
    fields = {"os": {"name": os}} if os else {}
    main, other, first = container(), container("other"), container("first", "klist")
    context = {}
    if level == "pod":
        context = windows_options("webapp01")
    else:
        main["securityContext"] |= windows_options("webapp01")
    if level == "init":
        first["securityContext"] |= windows_options("webapp02")
        fields["initContainers"] = [first]
    shop.cluster.apply(pod("web", main, other, securityContext=context, **fields))
    shop.wait_for_tickets("web")
    shop.wait_ready("web")
    others = shop.run_in("web", "klist", container="other")
    assert (WEBAPP01 in others) == (level == "pod")
    if level == "init":
        second = DEFAULT.format(account="WebApp02")
        shop.cluster.wait("the first's", lambda: second in shop.logs("web", "-c", "first"))


def test_a_debug_container_and_another_without_webhook(shop: Namespace) -> None:
    shop.cluster.apply(asking("web"))
    shop.wait_for_tickets("web")
    shop.cluster.kubectl(
        *("debug", "web", "-n", shop.name, f"--image={IMAGE}", "--image-pull-policy=Never"),
        *("--profile=restricted", "--container=look", "--", "sh", "-c", "klist; sleep 3600"),
    )
    shop.cluster.wait(
        "the debug container's tickets",
        lambda: WEBAPP01 in shop.logs("web", "-c", "look"),
        context=lambda: shop.events("web") + shop.logs("web", "-c", "look"),
    )


def test_a_sidecar_has_tickets_before_the_containers_start_and_while_they_run(
    shop: Namespace,
) -> None:
    """A container among the init containers that is restarted, and never ends by itself."""
    beside = container("beside", "klist; sleep 3600", restartPolicy="Always")
    beside["startupProbe"] = {"exec": {"command": ["klist", "-s"]}, "periodSeconds": 1}
    other = container("other", "klist; sleep 3600", restartPolicy="Always")
    other["securityContext"] |= windows_options("webapp02")
    shop.cluster.apply(asking("web", initContainers=[beside, other]))
    shop.wait_for_tickets("web")
    shop.wait_ready("web")
    assert WEBAPP01 in shop.run_in("web", "klist", container="beside")
    assert DEFAULT.format(account="WebApp02") in shop.run_in("web", "klist", container="other")
    # `sh` as the first process ends by no signal of its own namespace but those it handles.
    shop.run_in("web", "sh", "-c", "kill -9 -1", container="beside")
    shop.cluster.wait("its end and its start", lambda: restarts(shop, "beside") > 0)
    shop.cluster.wait(
        "its tickets", lambda: WEBAPP01 in shop.run_in("web", "klist", container="beside")
    )


def restarts(shop: Namespace, name: str) -> int:
    statuses = shop.cluster.get("pod", "web", "-n", shop.name)["status"]["initContainerStatuses"]
    return next(int(each["restartCount"]) for each in statuses if each["name"] == name)


def test_a_job_with_a_sidecar_ends(shop: Namespace) -> None:
    beside = container("beside", "klist; sleep 3600", restartPolicy="Always")
    template = {
        "metadata": {"annotations": {"credspec.dev/gmsa": "webapp01"}},
        "spec": pod_spec(container(line="klist"), initContainers=[beside], restartPolicy="Never"),
    }
    shop.cluster.apply(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "night", "namespace": shop.name},
            "spec": {"template": template},
        }
    )
    shop.cluster.kubectl(
        "wait", "job/night", "-n", shop.name, "--for=condition=Complete", "--timeout=100s"
    )
    shop.cluster.wait("its tickets", lambda: WEBAPP01 in shop.logs("job/night", "-c", "main"))


def test_a_job_ends_with_its_identity(shop: Namespace) -> None:
    template = {
        "metadata": {"annotations": {"credspec.dev/gmsa": "webapp01"}},
        "spec": pod_spec(container(line="klist"), restartPolicy="Never"),
    }
    shop.cluster.apply(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "night", "namespace": shop.name},
            "spec": {"template": template},
        }
    )
    shop.cluster.kubectl(
        "wait", "job/night", "-n", shop.name, "--for=condition=Complete", "--timeout=100s"
    )
    shop.cluster.wait("its tickets", lambda: WEBAPP01 in shop.logs("job/night"))


def test_with_the_value_for_selinux_a_pod_with_a_level_starts_on_a_kernel_without_it(
    shop: Namespace, chart: Chart
) -> None:
    """Without SELinux the kubelet gives the driver no option; only the value's effect is seen."""
    chart.upgrade(driver__seLinuxMount="true")
    try:
        assert shop.cluster.get("csidriver", "credspec.dev")["spec"]["seLinuxMount"] is True
        shop.cluster.apply(
            with_volume("web", securityContext={"seLinuxOptions": {"level": "s0:c1,c2"}})
        )
        shop.wait_for_tickets("web")
    finally:
        chart.upgrade()


def deployment(shop: Namespace, spec: str, replicas: int, version: str) -> dict[str, object]:
    annotations = {"credspec.dev/gmsa": spec, "example.com/version": version}
    labels = {"app": "web"}
    template = {
        "metadata": {"annotations": annotations, "labels": labels},
        "spec": pod_spec(container(line="klist && touch /tmp/ok && sleep 3600")),
    }
    main = template["spec"]["containers"][0]
    main["readinessProbe"] = {"exec": {"command": ["klist", "-s"]}, "periodSeconds": 1}
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


def test_a_rolling_update_of_20_replicas_reads_one_password(shop: Namespace, chart: Chart) -> None:
    # An account of this test's own: what the agent still holds of another's costs no read.
    shop.allow("WebApp03")
    before = chart.status()["acquisitions"]
    for version in ("1", "2"):
        shop.cluster.apply(deployment(shop, "webapp03", 20, version))
        shop.cluster.kubectl(
            *("rollout", "status", "deployment/web", "-n", shop.name, "--timeout=400s"),
            seconds=420,
        )
    pods = shop.cluster.get("pods", "-n", shop.name, "-l", "app=web")["items"]
    ready = [each for each in pods if "deletionTimestamp" not in each["metadata"]]
    assert len(ready) == 20
    assert chart.status()["acquisitions"] == before + 1


@pytest.mark.parametrize("level", ["pod", "container", "init"])
def test_who_may_not_use_it_is_refused_by_the_webhook(shop: Namespace, level: str) -> None:
    shop.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "stranger", "namespace": shop.name},
        }
    )
    made = pod("web", serviceAccountName="stranger")
    options = windows_options("webapp01")
    if level == "pod":
        made["spec"]["securityContext"] |= options
    elif level == "container":
        made["spec"]["containers"][0]["securityContext"] |= options
    else:
        made["spec"]["initContainers"] = [container("first")]
        made["spec"]["initContainers"][0]["securityContext"] |= options
    said = shop.refused(made)
    assert 'service account "stranger" is not authorized to `use` GMSA cred spec "webapp01"' in said
    assert "[kubernetes-spec-not-authorized]" in said


def test_with_a_volume_it_is_refused_on_the_node_until_it_may(shop: Namespace) -> None:
    shop.forbid("WebApp01")
    shop.cluster.apply(with_volume("web"))
    shop.cluster.wait("the event", lambda: "[csi-use-not-permitted]" in shop.events("web"))
    assert "PermissionDenied" in shop.events("web")
    shop.allow("WebApp01")
    shop.wait_for_tickets("web")


def test_an_object_that_is_not_there(shop: Namespace) -> None:
    shop.cluster.apply(role("nowhere", shop.name), role_binding("nowhere", shop.name, "default"))
    shop.wait_for_right("nowhere")
    assert "cred spec nowhere does not exist" in shop.refused(asking("web", spec="nowhere"))
    shop.cluster.apply(with_volume("web", spec="nowhere"))
    shop.cluster.wait("the event", lambda: "[kubernetes-spec-missing]" in shop.events("web"))
    assert "NotFound" in shop.events("web")
