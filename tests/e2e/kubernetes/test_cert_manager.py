"""The webhook with `webhook.certManager.enabled`, whose certificate others make.

cert-manager's programs are in no Go module that can be had, so the tests do what it does: issue
the Secret that the chart's Certificate names, and write the authority into the configurations.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.kubernetes.chart import CHART, NAMESPACE, Chart
from support.kubernetes.manifests import definition_of_any_contents
from support.kubernetes.namespace import Namespace, asking
from support.servers.certificate_authority import Authority, make_authority

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SERVICE = f"credspec-webhook.{NAMESPACE}.svc"
KINDS = ("mutatingwebhookconfiguration", "validatingwebhookconfiguration")


@pytest.fixture(scope="module")
def with_certificate(
    chart: Chart, shop: Namespace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Chart]:
    """The chart with the value, and the certificate of a first authority."""
    definitions = [
        definition_of_any_contents("cert-manager.io", *names)
        for names in (("certificates", "Certificate"), ("issuers", "Issuer"))
    ]
    chart.cluster.apply(*definitions)
    chart.cluster.wait_for_definitions(
        *(f"{each}.cert-manager.io" for each in ("certificates", "issuers"))
    )
    authority = make_authority(tmp_path_factory.mktemp("first") / "ca")
    issued(chart, authority)
    chart.helm(
        *("upgrade", "credspec", str(CHART), "--namespace", NAMESPACE),
        *(f"--set={name}={value}" for name, value in chart.values.items()),
        "--set=webhook.certManager.enabled=true",
    )
    trusted(chart, authority)
    chart.wait_ready()
    yield chart
    chart.upgrade()
    # What the configurations have is from before: the webhook puts its own in front.
    chart.cluster.wait("its own certificates again", lambda: every_one_is_taken(shop))
    chart.cluster.kubectl("delete", "secret", "credspec-webhook-tls", "-n", NAMESPACE)
    chart.cluster.delete(*definitions)


def issued(chart: Chart, authority: Authority) -> None:
    """Write the Secret as cert-manager does."""
    certificate, key = authority.issue(SERVICE)
    data = {
        "tls.crt": certificate.read_text(),
        "tls.key": key.read_text(),
        "ca.crt": authority.certificate.read_text(),
    }
    chart.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {"name": "credspec-webhook-tls", "namespace": NAMESPACE},
            "stringData": data,
        }
    )


def trusted(chart: Chart, *authorities: Authority) -> None:
    """Write authorities into the configurations as cert-manager does."""
    pem = b"".join(each.certificate.read_bytes() for each in authorities)
    value = base64.b64encode(pem).decode()
    for kind in KINDS:
        found = chart.cluster.get(kind, "credspec-webhook")
        changes = [
            {"op": "add", "path": f"/webhooks/{index}/clientConfig/caBundle", "value": value}
            for index in range(len(found["webhooks"]))
        ]
        patch = ("--type=json", f"-p={json.dumps(changes)}")
        chart.cluster.kubectl("patch", kind, "credspec-webhook", *patch)


def is_taken(shop: Namespace) -> bool:
    command = ("apply", "--dry-run=server", "-f", "-")
    found = shop.cluster.kubectl_result(*command, data=json.dumps(asking("probe")))
    return found.returncode == 0


def every_one_is_taken(shop: Namespace) -> bool:
    """Whether pods are taken whichever replica is asked."""
    return all(is_taken(shop) for _ in range(10))


def test_the_webhook_serves_the_certificate_that_others_issue(
    shop: Namespace, with_certificate: Chart
) -> None:
    cluster = with_certificate.cluster
    names = cluster.get("certificate", "credspec-webhook", "-n", NAMESPACE)["spec"]["dnsNames"]
    assert SERVICE in names
    assert cluster.get("issuer", "credspec-webhook", "-n", NAMESPACE)["spec"] == {"selfSigned": {}}
    for kind in KINDS:
        metadata = cluster.get(kind, "credspec-webhook")["metadata"]
        injected = metadata["annotations"]["cert-manager.io/inject-ca-from"]
        assert injected == f"{NAMESPACE}/credspec-webhook"
    shop.cluster.wait("that it is trusted", lambda: every_one_is_taken(shop))
    shop.cluster.apply(asking("web"))
    shop.wait_for_tickets("web")


def test_it_may_change_no_configuration_and_has_no_secret(
    shop: Namespace, with_certificate: Chart
) -> None:
    del shop
    who = f"--as=system:serviceaccount:{NAMESPACE}:credspec-webhook"
    cluster = with_certificate.cluster
    for verb, what in (
        ("patch", "mutatingwebhookconfigurations/credspec-webhook"),
        ("patch", "validatingwebhookconfigurations/credspec-webhook"),
        ("get", "secrets/credspec-webhook"),
        ("get", "secrets/credspec-webhook-tls"),
    ):
        found = cluster.kubectl_result("auth", "can-i", verb, what, "-n", NAMESPACE, who)
        assert found.stdout.strip() == "no", (verb, what)


def test_a_certificate_of_another_authority_is_served_without_a_start(
    shop: Namespace, with_certificate: Chart, tmp_path: Path
) -> None:
    replicas = with_certificate.webhooks()
    another = make_authority(tmp_path / "ca")
    issued(with_certificate, another)
    # The kubelet writes it into the volume within a minute or so, the webhook looks each minute.
    trusted(with_certificate, another)
    shop.cluster.wait("that none is refused", lambda: every_one_is_taken(shop))
    assert with_certificate.webhooks() == replicas
