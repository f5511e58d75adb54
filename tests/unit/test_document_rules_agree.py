"""Lint, the schema, the gateway and the agent accept and refuse the same documents."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from credspec.agent.leases.content import accounts_of, scopes_in
from credspec.directory.account_identity import valid_account_name
from credspec.directory.locator import valid_domain
from credspec.errors import CredspecError, InvalidSpecError, NotPermittedError
from credspec.providers.selection import Providers, plugin_source
from credspec.spec.host_account_plugins import CREDSPEC_PLUGIN_GUID, PLUGINS
from credspec.spec.lint import Severity, lint_bytes
from credspec.spec.reference import parse_reference
from credspec.spec.spec_directory import SpecDirectory, load
from credspec.spec.validation import schema_text
from support.specs.generated_specs import SPECS

SCHEMA = jsonschema_rs.Draft202012Validator(json.loads(schema_text()))
# What lies between two members, which a JSON Schema cannot say.
BETWEEN_MEMBERS = {"account-scope-invalid", "account-other-domain", "host-account-input"}
NAMES = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["a)(cn=*", "Web App", "Web$App$$", "..", "...$", "$", "a@b", "CN=a,DC=b", "x" * 64, "a?"]
    ),
    st.text(alphabet="aé.$ \x85\x9f\u2003*?/\\", min_size=1, max_size=6),
)
SCOPES = st.one_of(
    NAMES, st.sampled_from(["", "x" * 16, "a.b.", "a..b", ".", "EMEA", "emea.contoso.com", "a_b"])
)

GUIDS = st.one_of(
    NAMES,
    st.sampled_from([plugin.guid for plugin in PLUGINS.values()]),
    st.sampled_from(
        [
            *("{GDMA0342-266A-4D1P-831J-20990E82944F}", "{}", "{x}", CREDSPEC_PLUGIN_GUID.lower()),
            *(CREDSPEC_PLUGIN_GUID[1:-1], CREDSPEC_PLUGIN_GUID[1:], CREDSPEC_PLUGIN_GUID + "\n"),
        ]
    ),
)
INPUTS = st.one_of(
    NAMES,
    st.sampled_from(
        ["file:reader", "File:x", ":x", "file:", "a:b:c", "a\nb", "file:a\x7f", "é" * 20]
    ),
    st.sampled_from(["x" * (16 * 1024), "x" * (16 * 1024 + 1), "file:" + "x" * (16 * 1024)]),
    st.sampled_from([{}, {"CredentialArn": "x"}, {"a": "\x7f"}, {"a": "x" * 17000}]),
)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Valid specs of which some names were replaced by any text."""
    document = draw(SPECS)
    domain = document["DomainJoinConfig"]
    entries = document["ActiveDirectoryConfig"]["GroupManagedServiceAccounts"]
    for key, values in (("MachineAccountName", NAMES), ("DnsName", SCOPES), ("NetBiosName", NAMES)):
        if draw(st.integers(0, 4)) == 0:
            domain[key] = draw(values)
    for entry in entries:
        if draw(st.integers(0, 3)) == 0:
            entry["Name"] = draw(NAMES)
        if draw(st.integers(0, 3)) == 0:
            entry["Scope"] = draw(SCOPES)
    if draw(st.booleans()):
        host = {"PortableCcgVersion": "1", "PluginGUID": draw(GUIDS), "PluginInput": draw(INPUTS)}
        kept = draw(st.sets(st.sampled_from(sorted(host)), min_size=1).map(sorted))
        document["ActiveDirectoryConfig"]["HostAccountConfig"] = {key: host[key] for key in kept}
    return document


def with_name(name: str) -> dict[str, Any]:
    return {
        "CmsPlugins": ["ActiveDirectory"],
        "DomainJoinConfig": {"DnsName": "contoso.com", "MachineAccountName": name},
        "ActiveDirectoryConfig": {
            "GroupManagedServiceAccounts": [{"Name": name, "Scope": "contoso.com"}]
        },
    }


def with_host(**host: Any) -> dict[str, Any]:
    document = with_name("WebApp01")
    document["ActiveDirectoryConfig"]["HostAccountConfig"] = host
    return document


def as_the_gateway_reads_it(text: str) -> None:
    load(parse_reference(f"raw://{text}"), SpecDirectory.__new__(SpecDirectory))


def as_the_agent_reads_it(text: str) -> None:
    spec = load(parse_reference(f"raw://{text}"), SpecDirectory.__new__(SpecDirectory))
    valid_domain(spec.domain)
    accounts = accounts_of(spec)
    valid_account_name(spec.default_account)
    scopes = {account.partition("@")[2] for account in accounts} - {""} - scopes_in(accounts)
    for scope in scopes:
        valid_domain(scope)
    source = plugin_source(spec)
    if source is not None:
        # What a host's configuration does not allow says nothing about the document.
        with suppress(NotPermittedError):
            Providers().check(source)


@settings(max_examples=400)
@given(documents())
@example(with_name("a)(cn=*"))
@example(with_name("Web App"))
@example(with_host(PluginInput="file:reader"))
@example(with_host(PluginGUID=CREDSPEC_PLUGIN_GUID))
@example(with_host(PluginGUID=CREDSPEC_PLUGIN_GUID, PluginInput="reader"))
@example(with_host(PluginGUID=PLUGINS["rancher"].guid, PluginInput=""))
@example(with_host(PluginGUID=PLUGINS["rancher"].guid, PluginInput="a\nb"))
@example(with_host(PluginGUID=PLUGINS["rancher"].guid.strip("{}"), PluginInput="a:b"))
@example(with_host(PluginGUID="{GDMA0342-266A-4D1P-831J-20990E82944F}", PluginInput="a:b"))
@example(with_host(PluginGUID=PLUGINS["aws"].guid, PluginInput={"a": "x" * 17000}))
def test_a_document_that_one_refuses_is_refused_by_all(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    findings = lint_bytes(text.encode())
    codes = {f.problem.code for f in findings if f.severity is Severity.ERROR}
    if not codes:
        assert SCHEMA.is_valid(document)
        as_the_gateway_reads_it(text)
        as_the_agent_reads_it(text)
        return
    assert codes <= BETWEEN_MEMBERS or not SCHEMA.is_valid(document)
    with pytest.raises(InvalidSpecError):
        as_the_gateway_reads_it(text)
    with pytest.raises(CredspecError):
        as_the_agent_reads_it(text)
