"""The objects beside a ``GMSACredentialSpec`` that ``credspec convert`` prints."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from credspec.cli.convert import convert
from credspec.kubernetes.objects.examples import pod, role, role_binding, role_name
from credspec.kubernetes.objects.names import is_spec_name
from credspec.kubernetes.webhook.patch import patch_of_pod
from support.webhook.json_patch import applied
from support.webhook.pods import LABEL, faults_of

SAMPLES = Path(__file__).parents[2] / "spec/samples"
GOLDEN = Path(__file__).parent / "golden"


def converted(*arguments: str) -> str:
    result = CliRunner().invoke(convert, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("way", ["webhook", "csi"])
def test_three_objects_are_printed(way: str) -> None:
    shown = converted(
        *(str(SAMPLES / "single_entry.json"), "--to", "kubernetes", "--name", "webapp01"),
        *("--role", "--pod", way, "--namespace", "shop", "--service-account", "web"),
    )
    assert shown == (GOLDEN / f"three_objects_{way}.yaml").read_text("utf-8")
    kinds = [document["kind"] for document in yaml.safe_load_all(shown)]
    assert kinds == ["GMSACredentialSpec", "Role", "RoleBinding", "Pod"]


def test_they_are_read_back(tmp_path: Path) -> None:
    sample = str(SAMPLES / "single_entry.json")
    path = tmp_path / "all.yaml"
    path.write_text(
        converted(sample, "--to", "kubernetes", "--name", "one", "--role")
        + "---\n"
        + converted(sample, "--to", "kubernetes", "--name", "two")
    )
    found = converted(str(path), "--to", "json", "--object", "two")
    assert found == converted(sample, "--to", "json")
    result = CliRunner().invoke(convert, [str(path), "--to", "json"])
    assert result.exception is not None
    assert "2 objects of the kind GMSACredentialSpec: one, two" in str(result.exception)


LONG = [
    *("x" * 253, f"{'x' * 62}.b", f"{'x' * 62}-b"),
    *(f"{'x' * 248}.yyy", f"{'x' * 248}-yyy", f"{'x' * 247}---y"),
]


@pytest.mark.parametrize("spec", ["webapp01", "a.b", *LONG])
def test_the_names_of_all_objects_are_valid_ones(spec: str) -> None:
    assert is_spec_name(spec)
    for each in (role(spec, "shop"), role_binding(spec, "shop", "web"), pod(spec, "shop", "web")):
        assert is_spec_name(each["metadata"]["name"]), each["kind"]
    assert role_binding(spec, "shop", "web")["roleRef"]["name"] == role_name(spec)
    (container,) = pod(spec, "shop", "web")["spec"]["containers"]
    assert LABEL.fullmatch(container["name"])
    assert len(container["name"]) <= 63


@pytest.mark.parametrize("spec", ["webapp01", "a.b", *LONG])
def test_both_ways_lead_to_the_same_pod(spec: str) -> None:
    with_webhook = pod(spec, "shop", "web")
    without = pod(spec, "shop", "web", with_webhook=False)
    patched = applied(with_webhook, patch_of_pod(with_webhook).operations)
    assert patched["spec"] == without["spec"]
    assert not faults_of(without)


def test_they_are_for_kubernetes_only() -> None:
    result = CliRunner().invoke(
        convert, [str(SAMPLES / "single_entry.json"), "--to", "json", "--role"]
    )
    assert result.exit_code == 2
