"""Lint, the schema, the gateway and the agent accept and refuse the same documents."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest
from generated_specs import SPECS
from hypothesis import example, given, settings
from hypothesis import strategies as st

from credspec.agent.leases.content import accounts_of, scopes_in
from credspec.directory.account_identity import valid_account_name
from credspec.directory.locator import valid_domain
from credspec.errors import CredspecError, InvalidSpecError
from credspec.spec.lint import Severity, lint_bytes
from credspec.spec.reference import parse_reference
from credspec.spec.spec_directory import SpecDirectory, load
from credspec.spec.validation import schema_text

SCHEMA = jsonschema_rs.Draft202012Validator(json.loads(schema_text()))
# What lies between two members, which a JSON Schema cannot say.
BETWEEN_MEMBERS = {"account-scope-invalid", "account-other-domain"}
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
    return document


def with_name(name: str) -> dict[str, Any]:
    return {
        "CmsPlugins": ["ActiveDirectory"],
        "DomainJoinConfig": {"DnsName": "contoso.com", "MachineAccountName": name},
        "ActiveDirectoryConfig": {
            "GroupManagedServiceAccounts": [{"Name": name, "Scope": "contoso.com"}]
        },
    }


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


@settings(max_examples=400)
@given(documents())
@example(with_name("a)(cn=*"))
@example(with_name("Web App"))
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
