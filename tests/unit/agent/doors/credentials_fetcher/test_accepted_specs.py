"""Documents that both versions of credentials-fetcher take, and those that stay refused."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.agent.doors.credentials_fetcher.accepted_specs import accepted_spec
from credspec.errors import InvalidSpecError
from credspec.spec.document import CredentialSpec
from support.specs.generated_specs import SPECS

# As the tests of version 2 send it, but for the names.
PEERS: dict[str, Any] = {
    "DomainJoinConfig": {
        "Sid": "S-1-5-21-123456789-123456789-123456789",
        "MachineAccountName": "WebApp01",
        "DnsName": "contoso.com",
    },
    "ActiveDirectoryConfig": {
        "GroupManagedServiceAccounts": [{"Name": "WebApp01", "Scope": "contoso.com"}],
        "HostAccountConfig": {
            "PluginGUID": "859E1386-BDB4-49E8-85C7-3070B13920E1",
            "PluginInput": {"CredentialArn": "arn:aws:secretsmanager:us-west-2:1:secret:x"},
            "PortableCcgVersion": "1",
        },
    },
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The document with one member replaced; without it if the value is ``...``."""
    document = copy.deepcopy(PEERS)
    *parents, last = path.split("/")
    table: Any = document
    for key in parents:
        table = table[int(key) if key.isdigit() else key]
    if value is ...:
        table.pop(last, None)
    else:
        table[last] = value
    return document


DOMAIN, DIRECTORY = "DomainJoinConfig", "ActiveDirectoryConfig"
ACCOUNTS, HOST = f"{DIRECTORY}/GroupManagedServiceAccounts", f"{DIRECTORY}/HostAccountConfig"


@pytest.mark.parametrize(
    ("path", "value", "note"),
    [
        ("CmsPlugins", ..., "/CmsPlugins"),
        ("CmsPlugins", [], "/CmsPlugins"),
        ("CmsPlugins", None, "/CmsPlugins"),
        ("CmsPlugins", "ActiveDirectory", "/CmsPlugins"),
        (f"{DOMAIN}/Sid", ..., ""),
        (f"{DOMAIN}/Sid", "", "/DomainJoinConfig/Sid"),
        (f"{DOMAIN}/Guid", None, "/DomainJoinConfig/Guid"),
        (f"{DOMAIN}/NetBiosName", "", "/DomainJoinConfig/NetBiosName"),
        (f"{DOMAIN}/DnsTreeName", "", "/DomainJoinConfig/DnsTreeName"),
        (f"{DOMAIN}/MachineAccountName", ..., ""),
        (f"{DOMAIN}/MachineAccountName", "", "MachineAccountName"),
        (f"{DOMAIN}/MachineAccountName", 7, "MachineAccountName"),
        (f"{DOMAIN}/MachineAccountName", "Other01", "MachineAccountName"),
        (f"{ACCOUNTS}/0/Scope", ..., "Scope"),
        (f"{ACCOUNTS}/0/Scope", "", "Scope"),
        (f"{HOST}", None, "HostAccountConfig"),
        (f"{HOST}", ..., ""),
        (f"{HOST}/PluginGUID", PEERS[DIRECTORY]["HostAccountConfig"]["PluginGUID"], "no braces"),
        (f"{HOST}/PluginGUID", None, "PluginGUID"),
        (f"{HOST}/PluginGUID", ..., "PluginGUID"),
        (f"{HOST}/PluginInput", ..., "PluginInput"),
        (f"{HOST}/PluginInput", "", "PluginInput"),
        (f"{HOST}/PortableCcgVersion", None, "PortableCcgVersion"),
        (ACCOUNTS, [None, {"Name": ""}, {"Name": "WebApp01"}, {"Name": "a/b"}], "Scope"),
    ],
)
def test_what_its_versions_do_not_look_at(path: str, value: Any, note: str) -> None:
    accepted = accepted_spec(json.dumps(changed(path, value)))
    spec = accepted.spec
    assert (spec.domain, spec.default_account, spec.accounts) == (
        "contoso.com",
        "WebApp01",
        ("WebApp01",),
    )
    assert any(note in found for found in accepted.notes)
    assert spec.active_directory_config.group_managed_service_accounts[0].scope == "contoso.com"
    host = spec.active_directory_config.host_account_config
    if host is not None and host.plugin_guid is not None:
        assert host.plugin_guid == "{859E1386-BDB4-49E8-85C7-3070B13920E1}"
    # It is a spec like any other now.
    assert CredentialSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        (DOMAIN, ..., "spec-field-missing"),
        (f"{DOMAIN}/DnsName", ..., "spec-field-missing"),
        (f"{DOMAIN}/DnsName", "", "spec-dns-name-invalid"),
        (f"{DOMAIN}/DnsName", "a b", "spec-dns-name-invalid"),
        (f"{DOMAIN}/Sid", "S-1-x", "spec-sid-invalid"),
        (f"{DOMAIN}/Guid", "x", "spec-guid-invalid"),
        (DIRECTORY, ..., "spec-field-missing"),
        (ACCOUNTS, ..., "spec-field-missing"),
        (ACCOUNTS, [], "spec-accounts-empty"),
        (f"{ACCOUNTS}/0/Name", "", "spec-name-invalid"),
        (f"{ACCOUNTS}/0/Name", "../x", "spec-name-invalid"),
        (f"{ACCOUNTS}/0/Scope", "fabrikam.com", "account-other-domain"),
        (HOST, "x", "spec-wrong-type"),
        (f"{HOST}/PluginInput", 7, "spec-wrong-type"),
    ],
)
def test_what_stays_refused(path: str, value: Any, code: str) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        accepted_spec(json.dumps(changed(path, value)))
    assert code in {problem.code for problem in caught.value.problems}


def test_repeated_keys_stay_refused() -> None:
    text = json.dumps(PEERS)
    for key in ("DnsName", "Name", "Scope", "PluginInput"):
        twice = text.replace(f'"{key}":', f'"{key}": "other", "{key}":', 1)
        with pytest.raises(InvalidSpecError, match="spec-duplicate-key"):
            accepted_spec(twice)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_from_s3_it_comes_in_any_encoding_that_windows_writes(encoding: str) -> None:
    assert accepted_spec(json.dumps(PEERS).encode(encoding)).spec.domain == "contoso.com"
    assert accepted_spec("\ufeff" + json.dumps(PEERS)).spec.domain == "contoso.com"


def test_a_kubernetes_object_is_read_too() -> None:
    wrapped = {"kind": "GMSACredentialSpec", "metadata": {"name": "x"}, "credspec": PEERS}
    assert accepted_spec(json.dumps(wrapped)).spec.default_account == "WebApp01"


@given(SPECS)
def test_a_spec_that_every_reader_takes_is_taken_with_one_account(
    document: dict[str, Any],
) -> None:
    spec = CredentialSpec.from_json(document)
    try:
        accepted = accepted_spec(json.dumps(document))
    except InvalidSpecError as error:
        # MachineAccountName is not listed, and what is listed first is of another domain.
        assert error.code == "account-other-domain"
        return
    assert accepted.spec.domain == spec.domain
    assert set(accepted.spec.accounts) <= set(spec.accounts)
    assert len(accepted.spec.accounts) == 1
    assert accepted.spec.domain_join_config.sid == spec.domain_join_config.sid


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)
PATHS = ["CmsPlugins", DOMAIN, f"{DOMAIN}/DnsName", f"{DOMAIN}/MachineAccountName", DIRECTORY]
PATHS += [ACCOUNTS, f"{ACCOUNTS}/0/Name", f"{ACCOUNTS}/0/Scope", HOST, f"{HOST}/PluginGUID"]


@given(st.sampled_from(PATHS), JSON)
def test_whatever_a_member_is_it_is_taken_or_refused(path: str, value: Any) -> None:
    try:
        accepted = accepted_spec(json.dumps(changed(path, value)))
    except InvalidSpecError:
        return
    assert CredentialSpec.from_json(accepted.spec.to_json()) == accepted.spec
