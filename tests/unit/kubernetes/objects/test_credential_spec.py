"""Objects as the API server returns them, and of any other shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credspec.errors import CredspecError, InvalidSpecError
from credspec.kubernetes.objects.credential_spec import (
    MAX_OBJECT_BYTES,
    compact_contents,
    object_of,
    read_object,
)
from credspec.kubernetes.objects.names import is_spec_name, service_account_user, volume_name
from credspec.spec.document import CredentialSpec
from support.specs.generated_specs import SPECS
from support.webhook.reviews import CREDSPEC, gmsa

SAMPLES = Path(__file__).parents[2] / "spec/samples"


def test_an_object_is_read() -> None:
    document = gmsa("webapp01")
    document["metadata"] |= {"uid": "u-1", "resourceVersion": "7", "managedFields": []}
    found = read_object(json.dumps(document).encode())
    assert (found.name, found.uid, found.resource_version) == ("webapp01", "u-1", "7")
    assert found.spec == CredentialSpec.from_json(CREDSPEC)


def test_the_earlier_version_is_read_too() -> None:
    assert object_of(gmsa("a", apiVersion="windows.k8s.io/v1alpha1")).name == "a"


@settings(max_examples=50)
@given(SPECS)
def test_every_valid_spec_is_read_from_an_object(document: dict[str, Any]) -> None:
    assert object_of(gmsa("a", credspec=document)).spec == CredentialSpec.from_json(document)


@pytest.mark.parametrize("sample", ["host_aws_linux", "host_aws_windows"])
def test_plugin_input_is_an_object_or_a_text(sample: str) -> None:
    spec = CredentialSpec.from_bytes((SAMPLES / f"{sample}.json").read_bytes())
    assert object_of(gmsa("a", credspec=spec.to_json())).spec == spec


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (None, "kubernetes-object-kind"),
        ([], "kubernetes-object-kind"),
        ({}, "kubernetes-object-kind"),
        (gmsa("a", kind="Secret"), "kubernetes-object-kind"),
        (gmsa("a", apiVersion="auth.k8s.io/v1alpha1"), "kubernetes-object-kind"),
        (gmsa("a", metadata=None), "kubernetes-object-kind"),
        (gmsa("A"), "kubernetes-object-kind"),
        (gmsa("a", credspec=None), "kubernetes-object-empty"),
        (gmsa("a", credspec=[]), "spec-wrong-type"),
        (gmsa("a", credspec="{}"), "spec-wrong-type"),
        (gmsa("a", credspec={**CREDSPEC, "CmsPlugins": "ActiveDirectory"}), "spec-wrong-type"),
        (gmsa("a", credspec={**CREDSPEC, "x": "y" * 70_000}), "kubernetes-object-too-large"),
        (
            {key: value for key, value in gmsa("a", spec=CREDSPEC).items() if key != "credspec"},
            "kubernetes-object-empty",
        ),
    ],
)
def test_another_shape_is_refused(document: Any, code: str) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        object_of(document)
    assert caught.value.code == code


def test_the_size_is_looked_at_first() -> None:
    data = json.dumps(gmsa("a", metadata={"name": "a", "x": "y" * MAX_OBJECT_BYTES})).encode()
    with pytest.raises(InvalidSpecError, match="kubernetes-object-too-large"):
        read_object(data)
    # What kubectl notes of the object beside it may be larger than the spec itself.
    data = json.dumps(gmsa("a", metadata={"name": "a", "annotations": {"x": "y" * 90_000}}))
    assert read_object(data.encode()).name == "a"


@given(st.binary(max_size=30) | st.just(b"[" * 100_000))
def test_any_bytes_are_an_object_or_refused(data: bytes) -> None:
    with pytest.raises(CredspecError):
        read_object(data)


def test_contents_are_written_as_go_writes_them() -> None:
    expected = (
        '{"ActiveDirectoryConfig":{"GroupManagedServiceAccounts":[{"Name":"WebApp01",'
        '"Scope":"contoso.com"}]},"CmsPlugins":["ActiveDirectory"],"DomainJoinConfig":'
        '{"DnsName":"contoso.com","MachineAccountName":"WebApp01"}}'
    )
    assert compact_contents(gmsa("a")) == expected


LABELS = st.text("az09", min_size=1, max_size=70) | st.sampled_from(["a-b", "a--b"])
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join).filter(is_spec_name)


@given(NAMES, NAMES)
def test_each_spec_has_a_volume_name_of_its_own(one: str, other: str) -> None:
    names = {volume_name(one), volume_name(other)}
    assert len(names) == len({one, other})
    for name in names:
        assert len(name) <= 63
        assert is_spec_name(name)
        assert "." not in name


def test_a_service_account_is_a_user_with_groups() -> None:
    user, groups = service_account_user("shop", "web")
    assert user == "system:serviceaccount:shop:web"
    assert groups == [
        "system:serviceaccounts",
        "system:serviceaccounts:shop",
        "system:authenticated",
    ]
