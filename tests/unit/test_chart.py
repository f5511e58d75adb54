"""The Helm chart and the manifests made of it: they agree with each other and with the commands."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import click
import jsonschema_rs
import pytest
import yaml

from credspec.cli.kubernetes import kubernetes
from credspec.kubernetes.objects.names import ANNOTATION, DRIVER, INJECTED
from docs_reference.chart_page import CHART, chart_page, described_values

MANIFESTS = CHART.parents[1] / "kubernetes"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
SCHEMA = json.loads((CHART / "values.schema.json").read_text("utf-8"))


def manifests() -> list[dict[str, Any]]:
    text = (MANIFESTS / "credspec.yaml").read_text("utf-8")
    return [each for each in yaml.safe_load_all(text) if each is not None]


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [each for each in manifests() if each["kind"] == kind]


def test_the_defaults_are_as_the_schema_has_them() -> None:
    jsonschema_rs.validator_for(SCHEMA).validate(VALUES)


def test_every_value_is_described_and_every_description_has_a_value() -> None:
    named = {name for name, _, _ in described_values(SCHEMA, VALUES)}

    def names(values: Any, schema: dict[str, Any], prefix: str) -> set[str]:
        if "properties" not in schema:
            return {prefix}
        below = [
            names(value, schema["properties"][key], f"{prefix}.{key}".lstrip("."))
            for key, value in values.items()
        ]
        return set().union(*below)

    assert names(VALUES, SCHEMA, "") == named


@pytest.mark.parametrize(
    "path", [["webhook"], ["webhook", "certManager"], [], ["host"], ["agent"]], ids=str
)
def test_a_misspelt_value_is_refused(path: list[str]) -> None:
    values: Any = json.loads(json.dumps(VALUES))
    table = values
    for key in path:
        table = table[key]
    table["replica"] = 1
    assert not jsonschema_rs.validator_for(SCHEMA).is_valid(values)


def test_its_readme_is_what_it_says() -> None:
    assert (CHART / "README.md").read_text("utf-8") == chart_page(), "run make docs-reference"


def test_the_manifests_are_those_of_the_chart() -> None:
    path = MANIFESTS / "render.py"
    specification = importlib.util.spec_from_file_location("render", path)
    assert specification is not None
    assert specification.loader is not None
    render = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(render)
    first = (MANIFESTS / "credspec.yaml").read_text("utf-8").splitlines()[0]
    assert first == render.MARK + render.state_of_chart(), "run make manifests"


def test_no_account_may_more_than_it_must() -> None:
    found = {
        (each["kind"], each["metadata"]["name"]): [
            (
                [*rule["apiGroups"]],
                sorted(rule["resources"]),
                sorted(rule["verbs"]),
                rule.get("resourceNames"),
            )
            for rule in each["rules"]
        ]
        for each in manifests()
        if each["kind"] in {"Role", "ClusterRole"}
    }
    own = ["credspec-webhook"]
    objects = (["windows.k8s.io"], ["gmsacredentialspecs"], ["get"], None)
    configurations = ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"]
    assert found == {
        ("ClusterRole", "credspec"): [
            objects,
            (["authorization.k8s.io"], ["localsubjectaccessreviews"], ["create"], None),
        ],
        ("ClusterRole", "credspec-webhook"): [
            objects,
            (["authorization.k8s.io"], ["localsubjectaccessreviews"], ["create"], None),
            (["admissionregistration.k8s.io"], configurations, ["get", "patch"], own),
        ],
        ("Role", "credspec-webhook"): [([""], ["secrets"], ["get", "update"], own)],
    }


def test_templates_and_manifests_give_the_same_rights() -> None:
    """The manifests may have been edited where Helm is not at hand."""

    def rules(text: str) -> list[str]:
        names = re.compile(r"(?:- )?(apiGroups|resources|verbs): \[")
        return sorted(line.strip() for line in text.splitlines() if names.match(line.strip()))

    templates = [path.read_text("utf-8") for path in (CHART / "templates").glob("*-rbac.yaml")]
    assert len(templates) == 2
    assert rules("\n".join(templates)) == rules((MANIFESTS / "credspec.yaml").read_text("utf-8"))


def test_only_the_driver_is_privileged_and_has_the_nodes_token() -> None:
    (daemon_set,) = of_kind("DaemonSet")
    pod = daemon_set["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    contexts = {each["name"]: each["securityContext"] for each in pod["containers"]}
    assert [name for name, each in contexts.items() if each.get("privileged")] == ["csi-driver"]
    with_token = [
        each["name"]
        for each in pod["containers"]
        for mount in each["volumeMounts"]
        if mount["name"] == "token"
    ]
    assert with_token == ["csi-driver"]
    assert contexts["agent"]["capabilities"] == {
        "drop": ["ALL"],
        "add": ["CHOWN", "DAC_OVERRIDE"],
    }


def test_the_webhook_could_run_in_a_restricted_namespace() -> None:
    (deployment,) = of_kind("Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert not pod.get("volumes")


def test_the_webhook_is_started_with_options_that_it_has() -> None:
    (deployment,) = of_kind("Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    group, name, *options = container["args"]
    assert group == "kubernetes"
    command = kubernetes.get_command(click.Context(kubernetes), name)
    assert command is not None
    known = {option for parameter in command.params for option in parameter.opts}
    assert {option.partition("=")[0] for option in options} <= known
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    defaults = {each.name: each.default for each in command.params}
    assert (defaults["listen"], defaults["health_listen"]) == (
        f":{ports['https']}",
        f":{ports['health']}",
    )


def test_a_webhook_that_is_away_stops_only_pods_that_ask() -> None:
    webhooks = [
        webhook
        for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
        for configuration in of_kind(kind)
        for webhook in configuration["webhooks"]
    ]
    assert len(webhooks) == 4
    for each in webhooks:
        conditions = " ".join(one["expression"] for one in each["matchConditions"])
        assert "credspec.dev" in conditions
        assert each["sideEffects"] == "None"
        assert each["admissionReviewVersions"] == ["v1"]
        assert each["clientConfig"]["service"]["path"] in {"/mutate", "/validate"}
    debugging = [each for each in webhooks if each["failurePolicy"] == "Ignore"]
    assert [each["name"] for each in debugging] == ["debug-containers.credspec.dev"]
    asking = webhooks[0]["matchConditions"][1]["expression"]
    assert ANNOTATION.rpartition("/")[0] + "/" in asking
    assert INJECTED not in asking  # so that pods which the webhook has changed are validated


def test_the_driver_is_announced_as_the_code_calls_it() -> None:
    (driver,) = of_kind("CSIDriver")
    assert driver["metadata"]["name"] == DRIVER
    assert driver["spec"]["podInfoOnMount"] is True
    assert driver["spec"]["volumeLifecycleModes"] == ["Ephemeral"]


def test_kustomize_has_all_of_it() -> None:
    named = yaml.safe_load((MANIFESTS / "kustomization.yaml").read_text("utf-8"))["resources"]
    assert sorted(named) == sorted(
        path.name for path in MANIFESTS.glob("*.yaml") if path.name != "kustomization.yaml"
    )
    (crd,) = yaml.safe_load_all((MANIFESTS / "crds.yaml").read_text("utf-8"))
    assert crd["metadata"]["name"] == "gmsacredentialspecs.windows.k8s.io"
    assert Path(MANIFESTS / "crds.yaml").read_text("utf-8") == next(
        (CHART / "crds").iterdir()
    ).read_text("utf-8")
