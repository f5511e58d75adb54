"""Nodes without a keytab of their own: their account is in a Secret of the chart's namespace."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator

import pytest

from credspec.lab.domain import Lab
from credspec.spec.host_account_plugins import CREDSPEC_PLUGIN_GUID
from support.kubernetes.chart import NAMESPACE, Chart
from support.kubernetes.namespace import Namespace, with_volume

pytestmark = pytest.mark.timeout(1200)

RANCHER = "{e4781092-f116-4b79-b55e-28eb6a224e26}"
SEARCHED = "only-of-the-chart.test"


@pytest.fixture(scope="module")
def account(lab: Lab) -> Iterator[dict[str, str]]:
    """A user who may read the passwords of the gMSAs."""
    name, password = "k8s-reader", secrets.token_urlsafe(24) + "aA1!"
    lab.samba_tool("user", "create", name, "--random-password")
    lab.samba_tool("user", "setpassword", name, f"--newpassword={password}")
    lab.samba_tool("group", "addmembers", "LabHosts", name)
    yield {"username": name, "password": password, "domainName": lab.dns_domain}
    lab.samba_tool("user", "delete", name)


@pytest.fixture(scope="module", autouse=True)
def nodes(lab: Lab, chart: Chart, account: dict[str, str]) -> Iterator[Chart]:
    """Nodes with a Secret for all specs, one that specs may name, and servers of the domain."""
    for name, content in (
        ("ad-reader", {"account": json.dumps(account)}),
        ("of-specs", account),
        ("of-others", account),
    ):
        chart.cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name, "namespace": NAMESPACE},
                "stringData": content,
            }
        )
    unjoined = {"host__joined": "false", "hostAccount__secretName": "ad-reader"}
    servers = {
        "domain__nameServers": f"{{{lab.dc_address}}}",
        "domain__searches": f"{{{SEARCHED}}}",
    }
    chart.upgrade(**unjoined, **servers, hostAccount__secrets="{of-specs}")
    yield chart
    chart.upgrade()
    chart.cluster.kubectl("delete", "secret", "-n", NAMESPACE, "ad-reader", "of-specs", "of-others")


def test_one_account_for_all_specs(shop: Namespace, nodes: Chart) -> None:
    assert "krb5.keytab" not in nodes.in_agent("ls", "/etc")
    shop.cluster.apply(with_volume("web", spec="webapp02"))
    shop.wait_for_tickets("web", "WebApp02")


def test_the_domain_is_found_by_the_servers_of_the_chart(lab: Lab, nodes: Chart) -> None:
    lines = nodes.in_agent("cat", "/etc/resolv.conf").splitlines()
    assert [each for each in lines if each.startswith("nameserver")] == [
        f"nameserver {lab.dc_address}"
    ]
    assert f"search {SEARCHED}" in lines


@pytest.mark.parametrize(
    ("guid", "given"),
    [(CREDSPEC_PLUGIN_GUID, "kubernetes:of-specs"), (RANCHER, f"{NAMESPACE}:of-specs")],
)
def test_an_account_that_the_spec_names(shop: Namespace, guid: str, given: str) -> None:
    try:
        shop.cluster.apply(spec_with(shop, guid, given))
        shop.cluster.apply(with_volume("web", spec="webapp02"))
        shop.wait_for_tickets("web", "WebApp02")
    finally:
        shop.allow("WebApp02")


@pytest.mark.parametrize("given", [f"{NAMESPACE}:of-others", "kube-system:of-specs"])
def test_a_spec_may_not_name_another_secret(shop: Namespace, given: str) -> None:
    try:
        shop.cluster.apply(spec_with(shop, RANCHER, given))
        shop.cluster.apply(with_volume("web", spec="webapp02"))
        shop.cluster.wait("the event", lambda: "[host-account-not-given]" in shop.events("web"))
    finally:
        shop.allow("WebApp02")


def spec_with(shop: Namespace, guid: str, given: str) -> dict[str, object]:
    (document,) = (each for each in shop.converted("WebApp02") if "credspec" in each)
    document["credspec"]["ActiveDirectoryConfig"]["HostAccountConfig"] = {
        "PluginGUID": guid,
        "PluginInput": given,
        "PortableCcgVersion": "1",
    }
    return document
