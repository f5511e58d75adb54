"""The integration cases of windows-gmsa by their names, with Linux pods of a real cluster."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.kubernetes.chart import NAMESPACE, Chart
from support.kubernetes.namespace import Namespace, container, pod, windows_options

pytestmark = pytest.mark.timeout(1200)

OS = pytest.mark.parametrize("os", [None, "linux"])
LEVEL = pytest.mark.parametrize("level", ["pod", "container"])


def made(
    of_pod: dict[str, Any], *of_containers: dict[str, Any], os: str | None = None, **fields: Any
) -> dict[str, Any]:
    containers = []
    for index, options in enumerate(of_containers or ({},)):
        each = container(f"nginx{index}")
        each["securityContext"] |= options
        containers.append(each)
    if os:
        fields["os"] = {"name": os}
    return pod("front", *containers, securityContext=of_pod, **fields)


def at(level: str, options: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    return (options,) if level == "pod" else ({}, options)


def tickets(shop: Namespace, container_name: str) -> str:
    """The account that a container of the pod has, nothing if none."""
    shown = shop.run_in("front", "klist", container=container_name)
    return shown.partition("Default principal: ")[2].partition("$")[0]


def running(shop: Namespace, made_pod: dict[str, Any]) -> None:
    shop.cluster.apply(made_pod)
    shop.wait_ready("front")


def contents(shop: Namespace, account: str) -> str:
    (document,) = (each for each in shop.converted(account) if "credspec" in each)
    return json.dumps(document["credspec"], indent=1)


@OS
def test_happy_path_with_pod_level_cred_spec(shop: Namespace, os: str | None) -> None:
    running(shop, made(windows_options("webapp01"), os=os))
    assert tickets(shop, "nginx0") == "WebApp01"


@OS
def test_happy_path_with_container_level_cred_spec(shop: Namespace, os: str | None) -> None:
    running(shop, made({}, windows_options("webapp01"), {}, os=os))
    assert [tickets(shop, "nginx0"), tickets(shop, "nginx1")] == ["WebApp01", ""]


@OS
def test_happy_path_with_several_containers(shop: Namespace, os: str | None) -> None:
    shop.allow("WebApp03")
    options = [windows_options("webapp01"), {}, windows_options("webapp03")]
    running(shop, made(windows_options("webapp02"), *options, os=os))
    found = [tickets(shop, f"nginx{index}") for index in range(3)]
    assert found == ["WebApp01", "WebApp02", "WebApp03"]


@OS
def test_happy_path_with_pre_set_matching_contents(shop: Namespace, os: str | None) -> None:
    running(shop, made(windows_options("webapp01", contents(shop, "WebApp01")), os=os))
    assert tickets(shop, "nginx0") == "WebApp01"


def test_happy_path_with_host_agent_config_in_cred_spec(shop: Namespace) -> None:
    (document,) = (each for each in shop.converted("WebApp01") if "credspec" in each)
    document["credspec"]["ActiveDirectoryConfig"]["HostAccountConfig"] = {
        "PluginGUID": "{859E1386-BDB4-49E8-85C7-3070B13920E1}",
        "PluginInput": "contoso.com:gmsaccg:<password>",
        "PortableCcgVersion": "1",
    }
    shop.cluster.apply(document)
    try:
        shop.cluster.apply(made(windows_options("webapp01")))
        spec = shop.cluster.get("pod", "front", "-n", shop.name)["spec"]
        (volume,) = (each["csi"] for each in spec["volumes"] if "csi" in each)
        assert volume["volumeAttributes"]["credentialSpecName"] == "webapp01"
    finally:
        shop.allow("WebApp01")


@OS
@LEVEL
def test_service_account_does_not_have_permissions_to_use_cred_spec(
    shop: Namespace, level: str, os: str | None
) -> None:
    shop.forbid("WebApp02")
    try:
        said = shop.refused_at_last(made(*at(level, windows_options("webapp02")), os=os))
    finally:
        shop.allow("WebApp02")
    assert 'service account "default" is not authorized to `use` GMSA cred spec "webapp02"' in said


@OS
@LEVEL
def test_cred_spec_does_not_exist(shop: Namespace, level: str, os: str | None) -> None:
    said = shop.refused(made(*at(level, windows_options("i-sure-dont-exist")), os=os))
    assert "cred spec i-sure-dont-exist does not exist" in said


@OS
@LEVEL
def test_cannot_pre_set_contents_without_name(shop: Namespace, level: str, os: str | None) -> None:
    options = windows_options(None, contents(shop, "WebApp01"))
    said = shop.refused(made(*at(level, options), os=os))
    assert "has a GMSA cred spec set, but does not define the name of the corresponding" in said


@OS
@LEVEL
def test_cannot_pre_set_unmatching_gmsa_settings(
    shop: Namespace, level: str, os: str | None
) -> None:
    options = windows_options("webapp01", contents(shop, "WebApp02"))
    said = shop.refused(made(*at(level, options), os=os))
    assert 'does not match the contents of GMSA resource "webapp01"' in said


@LEVEL
def test_cannot_update_existing_gmsa_settings(shop: Namespace, level: str) -> None:
    # The API server itself takes no such change of a pod's spec; the annotation is ours.
    shop.cluster.apply(made(*at(level, windows_options("webapp01"))))
    said = shop.refused(made(*at(level, windows_options("webapp02"))))
    assert "Forbidden" in said
    change = ("annotate", "pod", "front", "-n", shop.name, "--overwrite")
    found = shop.cluster.kubectl_result(*change, "credspec.dev/gmsa=webapp02")
    assert found.returncode != 0
    assert "cannot update an existing pod's GMSA settings" in found.stderr


@OS
def test_possible_to_update_pod_with_existing_gmsa_settings(
    shop: Namespace, os: str | None
) -> None:
    shop.cluster.apply(made(windows_options("webapp01"), os=os))
    shop.cluster.kubectl("label", "pod", "front", "-n", shop.name, "a=b")


def test_possible_to_update_pod_with_new_cert(shop: Namespace, chart: Chart) -> None:
    """The Secret is emptied, so the webhook makes a new authority and a new certificate.

    No pod is refused while one replica serves the new certificate and the other the old one.
    """
    replicas = chart.webhooks()
    served = {name: certificates(chart, name) for name in replicas}
    secret = ("secret", "credspec-webhook", "-n", NAMESPACE)
    shop.cluster.kubectl("patch", *secret, "--type=json", '-p=[{"op":"remove","path":"/data"}]')
    document = json.dumps(made(windows_options("webapp01")))
    # A replica looks at the Secret each minute or so.
    shop.cluster.wait(
        "a new certificate of each replica",
        lambda: (
            shop.cluster.kubectl("apply", "--dry-run=server", "-f", "-", data=document)
            and all(certificates(chart, name) > served[name] for name in replicas)
        ),
    )
    for _ in range(20):
        shop.cluster.kubectl("apply", "--dry-run=server", "-f", "-", data=document)
    chart.wait_ready()


def certificates(chart: Chart, replica: str) -> int:
    """How many certificates a replica of the webhook has served."""
    lines = chart.cluster.kubectl("logs", replica, "-n", NAMESPACE).splitlines()
    return sum(bool(re.search(r"webhook-certificate\b(?!-)", line)) for line in lines)


def test_each_replica_has_a_certificate_of_the_authority(
    shop: Namespace, chart: Chart, tmp_path: Path
) -> None:
    """By OpenSSL, which is stricter than the API server."""
    query = "-o=jsonpath={.webhooks[0].clientConfig.caBundle}"
    configuration = ("get", "mutatingwebhookconfiguration", "credspec-webhook", query)
    authorities = tmp_path / "ca.crt"
    authorities.write_bytes(base64.b64decode(shop.cluster.kubectl(*configuration)))
    name = f"credspec-webhook.{NAMESPACE}.svc"
    options = ["-verify_return_error", "-x509_strict", "-verify_hostname", name]
    replicas = chart.webhooks()
    assert len(replicas) == 2
    for replica in replicas:
        address = shop.cluster.get("pod", replica, "-n", NAMESPACE)["status"]["podIP"]
        command = ["openssl", "s_client", "-connect", f"{address}:8443", *options]
        found = subprocess.run(
            shop.cluster.in_network([*command, "-CAfile", str(authorities), "-servername", name]),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert "Verify return code: 0 (ok)" in found.stdout, found.stdout + found.stderr


def test_possible_hostname_randomization_is_not_needed(shop: Namespace) -> None:
    """windows-gmsa changes hostnames since replicas of an account disturb each other there."""
    running(shop, made(windows_options("webapp01")))
    assert "hostname" not in shop.cluster.get("pod", "front", "-n", shop.name)["spec"]


@pytest.mark.parametrize("version", ["v1alpha1", "v1"])
def test_deploy_cred_spec_get_all_versions(shop: Namespace, version: str) -> None:
    (document,) = (each for each in shop.converted("WebApp01") if "credspec" in each)
    name = f"of-{version}"
    document |= {"apiVersion": f"windows.k8s.io/{version}", "metadata": {"name": name}}
    shop.cluster.apply(document)
    for each in ("v1alpha1", "v1"):
        found = shop.cluster.get(f"gmsacredentialspecs.{each}.windows.k8s.io", name)
        assert found["credspec"] == document["credspec"]
    shop.cluster.kubectl("delete", "gmsacredentialspec", name)
