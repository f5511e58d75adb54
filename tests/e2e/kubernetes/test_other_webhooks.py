"""Beside another mutating webhook that sets the field of Windows, called before ours or after it.

windows-gmsa's own program is published as no Go module; this one does in the cluster what that one
does with a pod.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.kubernetes.chart import Chart
from support.kubernetes.namespace import Namespace, asking, container, pod, windows_options
from support.servers.certificate_authority import Authority, make_authority

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

PORT = 18443
TESTS = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def inlining(shop: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    """The other webhook, as a program beside the API server."""
    directory = tmp_path_factory.mktemp("inlining")
    authority = make_authority(directory / "ca")
    certificate, key = authority.issue("inlining")
    specs = {
        account.lower(): next(
            each["credspec"] for each in shop.converted(account) if "credspec" in each
        )
        for account in ("WebApp01", "WebApp02")
    }
    (directory / "specs.json").write_text(json.dumps(specs))
    program = [sys.executable, "-m", "support.kubernetes.inlining_webhook", str(PORT)]
    files = [str(certificate), str(key), str(directory / "specs.json")]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            shop.cluster.in_network([*program, *files]), cwd=TESTS, stdout=log, stderr=log
        )
    try:
        yield authority
        assert process.poll() is None, (directory / "log").read_text()
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(params=["a-inlining", "z-inlining"], ids=["before", "after"])
def both(
    request: pytest.FixtureRequest, shop: Namespace, chart: Chart, inlining: Authority
) -> Iterator[Namespace]:
    """The API server asks webhooks in the order of their names."""
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": request.param},
        "webhooks": [
            {
                "name": "inlining.example.com",
                "clientConfig": {
                    "url": f"https://127.0.0.1:{PORT}/mutate",
                    "caBundle": base64.b64encode(inlining.certificate.read_bytes()).decode(),
                },
                "rules": [
                    {
                        "operations": ["CREATE"],
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "resources": ["pods"],
                    }
                ],
                "failurePolicy": "Fail",
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
            }
        ],
    }
    shop.cluster.apply(configuration)
    shop.cluster.wait("that the other one is asked", lambda: is_inlined(shop))
    yield shop
    shop.cluster.delete(configuration)
    # It would be asked, and is not there any more, when other tests make pods.
    shop.cluster.wait("that the other one is asked no more", lambda: not is_inlined(shop))


def is_inlined(shop: Namespace) -> bool:
    """Look whether contents are written into a pod for Windows, which ours leaves alone."""
    made = pod("probe", nodeSelector={"kubernetes.io/os": "windows"})
    made["spec"]["securityContext"] |= windows_options("webapp01")
    command = ("apply", "--dry-run=server", "-o", "json", "-f", "-")
    found = shop.cluster.kubectl_result(*command, data=json.dumps(made))
    return found.returncode == 0 and '"gmsaCredentialSpec"' in found.stdout


def options_of(made: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = made["spec"]["securityContext"].get("windowsOptions", {})
    return found


@pytest.mark.parametrize("os", [None, "linux"])
def test_another_webhook_that_writes_contents_into_the_field_does_no_harm(
    both: Namespace, os: str | None
) -> None:
    fields: dict[str, Any] = {"os": {"name": os}} if os else {}
    main, other = container(), container("other")
    other["securityContext"] |= windows_options("webapp02")
    made = pod("web", main, other, **fields)
    made["spec"]["securityContext"] |= windows_options("webapp01")
    both.cluster.apply(made)
    both.wait_for_tickets("web")
    assert "WebApp02$@" in both.run_in("web", "klist", container="other")
    found = both.cluster.get("pod", "web", "-n", both.name)
    # A pod for Linux may not have the fields at all; another keeps what the other webhook wrote.
    assert ("gmsaCredentialSpec" in options_of(found)) == (os is None)


def test_another_webhook_does_not_let_a_stranger_in(both: Namespace) -> None:
    stranger = {"name": "outsider", "namespace": both.name}
    both.cluster.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": stranger})
    made = pod("web", serviceAccountName="outsider")
    made["spec"]["securityContext"] |= windows_options("webapp01")
    assert "[kubernetes-spec-not-authorized]" in both.refused(made)
    both.cluster.apply(asking("web"))
    both.wait_for_tickets("web")
