"""The chart's objects are as Kubernetes' own schemas have them, with nothing unknown."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from support.kubernetes.programs import path_of

ROOT = Path(__file__).parents[2]
CHART = ROOT / "packaging/helm/credspec"
VALUES = [None, *sorted(Path(__file__).with_name("chart_values").glob("*.yaml"))]
OLDEST, NEWEST = "1.28", "1.37"
# Of others: their own controllers bring the definitions.
FOREIGN = {"PodMonitor", "Certificate", "Issuer"}


def helm() -> str | None:
    """Return the helm that `make test-kubernetes` built, or one that is installed."""
    built = path_of("helm")
    return str(built) if os.access(built, os.X_OK) else shutil.which("helm")


def objects_in(text: str) -> Iterator[dict[str, Any]]:
    return (each for each in yaml.safe_load_all(text) if each is not None)


def rendered(values: Path | None, version: str) -> list[dict[str, Any]]:
    command = [helm() or "helm", "template", "credspec", str(CHART), "--namespace=credspec"]
    command += [f"--kube-version={version}.0", *([f"--values={values}"] if values else [])]
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return list(objects_in(done.stdout))


def check(document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize(
    "path", sorted((ROOT / "packaging/kubernetes").glob("*.yaml")), ids=lambda path: path.name
)
def test_plain_manifests_are_valid(path: Path, version: str) -> None:
    if path.name == "kustomization.yaml":
        return  # kubectl's own, no object
    for document in objects_in(path.read_text("utf-8")):
        check(document, version)


@pytest.mark.skipif(helm() is None, reason="helm is not built: make test-kubernetes builds it")
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem if path else "defaults")
def test_objects_of_the_chart_are_valid(values: Path | None, version: str) -> None:
    found = rendered(values, version)
    kinds = [document["kind"] for document in found]
    assert {"DaemonSet", "CSIDriver", "ConfigMap", "ClusterRole"} <= {*kinds}
    assert kinds.count("PodMonitor") == (2 if values and values.stem == "watched" else 0)
    for document in found:
        if document["kind"] not in FOREIGN:
            check(document, version)


@pytest.mark.skipif(helm() is None, reason="helm is not built: make test-kubernetes builds it")
@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem if path else "defaults")
def test_helm_lint_finds_nothing(values: Path | None) -> None:
    program = helm()
    assert program is not None
    options = [f"--values={values}"] if values else []
    command = [str(program), "lint", "--strict", *options, str(CHART)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout


@pytest.mark.skipif(helm() is None, reason="helm is not built: make test-kubernetes builds it")
def test_the_port_of_metrics() -> None:
    by_values = {path.stem: rendered(path, NEWEST) for path in VALUES if path}
    for name, port, policies in (("watched", 9500, 1), ("pod-network", 9477, 2), ("alone", 0, 0)):
        found = by_values[name]
        (nodes,) = [each for each in found if each["kind"] == "DaemonSet"]
        containers = {
            each["name"]: each for each in nodes["spec"]["template"]["spec"]["containers"]
        }
        ports = containers["csi-driver"].get("ports", [])
        assert ports == ([{"name": "metrics", "containerPort": port}] if port else [])
        listens = f"--metrics-listen=$(POD_IP):{port}" in containers["csi-driver"]["args"]
        assert listens == bool(port)
        assert "ports" not in containers["agent"]
        # On the network of the node none would hold.
        assert sum(each["kind"] == "NetworkPolicy" for each in found) == policies


def test_an_object_that_is_wrong_is_noticed() -> None:
    text = (ROOT / "packaging/kubernetes/credspec.yaml").read_text("utf-8")
    (nodes,) = [each for each in objects_in(text) if each["kind"] == "DaemonSet"]
    nodes["spec"]["template"]["spec"]["containers"][0]["privileged"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        check(nodes, NEWEST)
