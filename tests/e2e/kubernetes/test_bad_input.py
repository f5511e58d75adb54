"""What authors of pods and objects may get wrong, or try, under a real API server and kubelet."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.kubernetes.namespace import DEFAULT, Namespace, with_volume

pytestmark = pytest.mark.timeout(1200)

WEBAPP01 = DEFAULT.format(account="WebApp01")
KUBELETS = "csi.storage.k8s.io/"


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ({"credentialSpecName": "WebApp01"}, "csi-spec-name"),
        ({"credentialSpecName": "../webapp01"}, "csi-spec-name"),
        ({"credentialSpec": "webapp01"}, "csi-attribute-unknown"),
        ({"mode": "0666"}, "csi-attribute-invalid"),
        ({"uid": "-1"}, "csi-attribute-invalid"),
    ],
)
def test_attributes_that_mean_nothing(
    shop: Namespace, attributes: dict[str, str], code: str
) -> None:
    shop.cluster.apply(with_volume("web", attributes=attributes))
    shop.cluster.wait("the event", lambda: f"[{code}]" in shop.events("web"))
    assert "InvalidArgument" in shop.events("web")


def test_a_pod_that_says_it_is_another_account(shop: Namespace) -> None:
    account = {"name": "stranger", "namespace": shop.name}
    shop.cluster.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
    forged = {
        f"{KUBELETS}serviceAccount.name": "default",
        f"{KUBELETS}serviceAccount.tokens": '{"": {"token": "forged"}}',
        f"{KUBELETS}pod.namespace": "kube-system",
        f"{KUBELETS}ephemeral": "false",
    }
    shop.cluster.apply(with_volume("web", attributes=forged, serviceAccountName="stranger"))
    shop.cluster.wait("the event", lambda: "[csi-use-not-permitted]" in shop.events("web"))
    assert "'stranger'" in shop.events("web")


def test_a_volume_mounted_twice_by_parts_and_read_only(shop: Namespace) -> None:
    made = with_volume("web")
    (main,) = made["spec"]["containers"]
    main["volumeMounts"] += [
        {"name": "gmsa", "mountPath": "/again", "readOnly": True},
        {"name": "gmsa", "mountPath": "/part/cache", "subPath": "krb5cc"},
    ]
    shop.cluster.apply(made)
    shop.wait_for_tickets("web")
    for path in ("/again/krb5cc", "/part/cache"):
        assert WEBAPP01 in shop.run_in("web", "klist", "-c", path)
    assert shop.run_in("web", "sh", "-c", "touch /again/x || echo refused") == "refused\n"


def test_a_volume_that_is_read_only(shop: Namespace) -> None:
    made = with_volume("web")
    made["spec"]["volumes"][0]["csi"]["readOnly"] = True
    shop.cluster.apply(made)
    shop.wait_for_tickets("web")
    written = "touch /run/credspec/x || echo refused"
    assert shop.run_in("web", "sh", "-c", written) == "refused\n"


def test_two_volumes_of_two_specs_in_one_pod(shop: Namespace) -> None:
    made = with_volume("web")
    other = with_volume("other", spec="webapp02")["spec"]["volumes"][0] | {"name": "second"}
    made["spec"]["volumes"].append(other)
    (main,) = made["spec"]["containers"]
    main["volumeMounts"].append({"name": "second", "mountPath": "/second"})
    shop.cluster.apply(made)
    shop.wait_for_tickets("web")
    second = DEFAULT.format(account="WebApp02")
    assert second in shop.run_in("web", "klist", "-c", "/second/krb5cc")


@pytest.mark.parametrize(
    ("credspec", "code"),
    [
        (None, "kubernetes-object-empty"),
        ({}, "spec-"),
        ({"CmsPlugins": ["x" * 1_000_000]}, "spec-"),
    ],
    ids=["none", "empty", "1 MB"],
)
def test_objects_that_hold_no_spec(shop: Namespace, credspec: Any, code: str) -> None:
    (document, *rights) = shop.converted("WebApp01", "--role", "--name", "broken")
    document["credspec"] = credspec
    if credspec is None:
        del document["credspec"]
    shop.cluster.apply(*rights)
    # Not by `apply`, whose annotation would be larger than annotations may be.
    shop.cluster.kubectl("delete", "gmsacredentialspec", "broken", "--ignore-not-found")
    shop.cluster.kubectl("create", "-f", "-", data=json.dumps(document))
    shop.cluster.apply(with_volume("web", spec="broken"))
    shop.cluster.wait("the event", lambda: f"[{code}" in shop.events("web"))
    assert "FailedPrecondition" in shop.events("web")


def test_the_api_server_takes_no_input_that_is_an_object(shop: Namespace) -> None:
    """As AWS writes it for Linux hosts; Kubernetes' definition knows texts only."""
    (document,) = (each for each in shop.converted("WebApp01") if "credspec" in each)
    document["metadata"]["name"] = "aws"
    document["credspec"]["ActiveDirectoryConfig"]["HostAccountConfig"] = {
        "PluginGUID": "{859E1386-BDB4-49E8-85C7-3070B13920E1}",
        "PluginInput": {"CredentialArn": "arn:aws:secretsmanager:eu-west-1:1:secret:a"},
    }
    assert "PluginInput" in shop.refused(document)
