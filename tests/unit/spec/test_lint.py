from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from credspec.spec.document import (
    ActiveDirectoryConfig,
    CredentialSpec,
    DomainJoinConfig,
    GroupManagedServiceAccount,
    HostAccountConfig,
)
from credspec.spec.fixes import fixed
from credspec.spec.lint import MAX_FINDINGS, Finding, Severity, lint_bytes, lint_document
from credspec.spec.rules.keys import KEYS
from credspec.spec.rules.registry import FIX_ORDER, RULES
from credspec.spec.validation import described_keys, problems_of, schema_text

HERE = Path(__file__).parent
DOMAIN = "/DomainJoinConfig"
ACCOUNTS = "/ActiveDirectoryConfig/GroupManagedServiceAccounts"
HOST = "/ActiveDirectoryConfig/HostAccountConfig"

GOOD: dict[str, Any] = {
    "CmsPlugins": ["ActiveDirectory"],
    "DomainJoinConfig": {
        "Sid": "S-1-5-21-702590844-1001920913-2680819671",
        "MachineAccountName": "webapp01",
        "Guid": "56d9b66c-d746-4f87-bd26-26760cfdca2e",
        "DnsTreeName": "contoso.com",
        "DnsName": "emea.contoso.com",
        "NetBiosName": "EMEA",
    },
    "ActiveDirectoryConfig": {
        "GroupManagedServiceAccounts": [
            {"Name": "webapp01", "Scope": "emea.contoso.com"},
            {"Name": "webapp01", "Scope": "EMEA"},
            {"Name": "logs", "Scope": "emea.contoso.com"},
        ],
        "HostAccountConfig": {
            "PortableCcgVersion": "1",
            "PluginGUID": "{e4781092-f116-4b79-b55e-28eb6a224e26}",
            "PluginInput": "cattle-gmsa:reader",
        },
    },
}
GONE = object()


def changed(*changes: tuple[str, Any]) -> dict[str, Any]:
    """Return the good document with members set by their pointers, or removed for `GONE`."""
    document = deepcopy(GOOD)
    for pointer, value in changes:
        target: Any = document
        *parents, last = pointer.split("/")[1:]
        for token in parents:
            target = target[int(token) if isinstance(target, list) else token]
        if value is GONE:
            del target[last]
        elif isinstance(target, list):
            target.insert(int(last), value)
        else:
            target[last] = value
    return document


def found(document: Any) -> list[tuple[str, str, bool]]:
    findings = lint_document(document)
    return [(f.problem.code, f.problem.where, f.fixable) for f in findings]


def test_a_good_document_has_no_finding() -> None:
    assert lint_document(GOOD) == ()
    assert lint_bytes(json.dumps(GOOD).encode()) == ()


OTHER = "{00000000-0000-0000-0000-00000000000a}"

# Each rule: a document, the code, the place, whether it can be fixed.
CASES: list[tuple[dict[str, Any], str, str, bool]] = [
    (
        {"kind": "GMSACredentialSpec", "metadata": {"name": "Web"}, "credspec": GOOD},
        *("lint-object-name", "/metadata/name", False),
    ),
    (
        changed((f"{DOMAIN}/MachineAccountName", "webapp01$")),
        *("lint-trailing-dollar", f"{DOMAIN}/MachineAccountName", True),
    ),
    (
        changed((f"{ACCOUNTS}/2", {"Name": "logs2$", "Scope": "EMEA"})),
        *("lint-trailing-dollar", f"{ACCOUNTS}/2/Name", True),
    ),
    (
        changed((f"{ACCOUNTS}/2", {"Name": "fifteenletters1", "Scope": "EMEA"})),
        *("lint-name-too-long", f"{ACCOUNTS}/2/Name", False),
    ),
    (
        changed((f"{ACCOUNTS}/2", {"Name": "w?bapp", "Scope": "EMEA"})),
        *("lint-name-question-mark", f"{ACCOUNTS}/2/Name", False),
    ),
    (
        changed((f"{DOMAIN}/Sid", "S-1-5-21-1-2-3-1104")),
        *("lint-sid-of-account", f"{DOMAIN}/Sid", True),
    ),
    (
        changed(
            (f"{DOMAIN}/DnsName", "contoso.com"), (f"{DOMAIN}/DnsTreeName", "emea.contoso.com")
        ),
        *("lint-dns-names-swapped", f"{DOMAIN}/DnsTreeName", True),
    ),
    (
        changed((f"{DOMAIN}/DnsTreeName", "x.emea.contoso.com")),
        *("lint-dns-names-swapped", f"{DOMAIN}/DnsTreeName", False),
    ),
    (
        changed((f"{DOMAIN}/DnsTreeName", "CONTOSO")),
        *("lint-dns-name-single-label", f"{DOMAIN}/DnsTreeName", False),
    ),
    (changed((f"{DOMAIN}/Sid", GONE)), "lint-domain-field-missing", f"{DOMAIN}/Sid", False),
    (changed((f"{DOMAIN}/Guid", GONE)), "lint-domain-field-missing", f"{DOMAIN}/Guid", False),
    (
        changed((f"{DOMAIN}/Guid", "{56d9b66c-d746-4f87-bd26-26760cfdca2e}")),
        *("lint-guid-braces", f"{DOMAIN}/Guid", True),
    ),
    (
        changed((f"{DOMAIN}/MachineAccountName", GONE)),
        *("lint-machine-account-missing", f"{DOMAIN}/MachineAccountName", True),
    ),
    (
        changed((f"{DOMAIN}/MachineAccountName", "webapp02")),
        *("lint-machine-account-unlisted", f"{DOMAIN}/MachineAccountName", False),
    ),
    (
        changed((f"{ACCOUNTS}", [{"Name": "webapp01", "Scope": "emea.contoso.com"}])),
        *("lint-scope-twin-missing", f"{ACCOUNTS}/0", True),
    ),
    (
        changed((f"{ACCOUNTS}", [{"Name": "webapp01", "Scope": "EMEA"}])),
        *("lint-scope-twin-missing", f"{ACCOUNTS}/0", True),
    ),
    (
        changed((f"{ACCOUNTS}/2", {"Name": "sql", "Scope": "emea.contoso.con"})),
        *("lint-scope-unknown", f"{ACCOUNTS}/2/Scope", False),
    ),
    (
        changed((f"{ACCOUNTS}/2", {"Name": "WebApp01", "Scope": "Emea"})),
        *("lint-account-twice", f"{ACCOUNTS}/2", True),
    ),
    (changed(("/Comment", "x")), "lint-key-unknown", "/Comment", False),
    (changed((f"{HOST}/Timeout", 5)), "lint-key-unknown", f"{HOST}/Timeout", False),
    (
        changed((f"{DOMAIN}/Guid", GONE), (f"{DOMAIN}/GUID", GOOD["DomainJoinConfig"]["Guid"])),
        *("lint-key-misspelt", f"{DOMAIN}/GUID", True),
    ),
    (
        changed((f"{DOMAIN}/NetBiosName", GONE), (f"{DOMAIN}/NetBiosNames", "EMEA")),
        *("lint-key-misspelt", f"{DOMAIN}/NetBiosNames", True),
    ),
    (
        changed((f"{HOST}/PluginGUID", "e4781092-f116-4b79-b55e-28eb6a224e26")),
        *("lint-plugin-guid-braces", f"{HOST}/PluginGUID", True),
    ),
    (
        changed((f"{HOST}/PluginGUID", GONE), (f"{HOST}/PluginInput", GONE)),
        "lint-plugin-field-missing",
        f"{HOST}/PluginInput",
        False,
    ),
    (
        changed((f"{HOST}/PortableCcgVersion", "2")),
        *("lint-ccg-version", f"{HOST}/PortableCcgVersion", True),
    ),
    (
        changed((f"{HOST}/PluginGUID", OTHER), (f"{HOST}/PluginInput", "contoso:reader:Passw0rd")),
        *("lint-plugin-input-secret", f"{HOST}/PluginInput", False),
    ),
    (
        changed((f"{HOST}/PluginGUID", OTHER), (f"{HOST}/PluginInput", "user=a;Password=b")),
        *("lint-plugin-input-secret", f"{HOST}/PluginInput", False),
    ),
    (
        changed((f"{HOST}/PluginInput", "reader")),
        *("lint-plugin-input-form", f"{HOST}/PluginInput", False),
    ),
    (
        changed(
            (f"{HOST}/PluginGUID", "{ccc2a336-D7F3-4818-A213-272B7924213E}"),
            (f"{HOST}/PluginInput", "ObjectId=1"),
        ),
        *("lint-plugin-input-form", f"{HOST}/PluginInput", False),
    ),
    (
        changed((f"{HOST}/PluginInput", {"CredentialArn": "x"})),
        *("lint-plugin-input-object", f"{HOST}/PluginInput", False),
    ),
]


@pytest.mark.parametrize(("document", "code", "where", "fixable"), CASES)
def test_rules(document: dict[str, Any], code: str, where: str, fixable: bool) -> None:
    assert (code, where, fixable) in found(document)
    if fixable:
        assert code not in {name for name, _, _ in found(fixed(document)[0])}


def test_every_rule_has_a_case_and_says_whether_it_mends() -> None:
    cases = {code: fixable for _, code, _, fixable in reversed(CASES)}
    # Those about files of other tools have theirs in test_file_kind.py.
    of_carriers = {"lint-no-spec", "lint-compose-credential-spec", "lint-service-of-machine"}
    assert cases.keys() == RULES.keys() - of_carriers
    for code, rule in RULES.items():
        assert rule.fixable == any(fixable for _, name, _, fixable in CASES if name == code), code


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # What New-CredentialSpec itself writes, and what is legal, is no finding.
        ([(f"{ACCOUNTS}/3", {"Name": "other", "Scope": "EMEA"})], []),
        ([(f"{HOST}/PluginInput", "arn:aws:x")], ["lint-plugin-input-form"]),
        ([(HOST, GONE)], []),
    ],
)
def test_what_is_no_finding(changes: list[tuple[str, Any]], expected: list[str]) -> None:
    assert [code for code, _, _ in found(changed(*changes))] == expected


@pytest.mark.parametrize("name", ["A-NAME-TOO-LONG-1", "EMEA.CONTOSO", "emea.contoso.com", "E A"])
def test_what_is_no_netbios_name_is_an_error(name: str) -> None:
    (finding,) = [
        finding
        for finding in lint_document(changed((f"{DOMAIN}/NetBiosName", name)))
        if finding.problem.where == f"{DOMAIN}/NetBiosName"
    ]
    assert (finding.severity, finding.problem.code) == (Severity.ERROR, "spec-name-invalid")
    assert "NetBIOS name" in finding.problem.expected


def test_errors_and_warnings_come_together_errors_first() -> None:
    document = changed((f"{DOMAIN}/Sid", 5), (f"{DOMAIN}/MachineAccountName", "webapp01$"))
    findings = lint_document(document)
    assert [f.severity for f in findings] == [Severity.ERROR, Severity.WARNING]
    assert findings[0].problem.code == "spec-wrong-type"


@pytest.mark.parametrize(
    ("change", "corrected"),
    [
        (("/CmsPlugins", GONE), ["ActiveDirectory"]),
        (("/CmsPlugins", "ActiveDirectory"), ["ActiveDirectory"]),
        ((f"{HOST}/PortableCcgVersion", 1), "1"),
        ((ACCOUNTS, GOOD["ActiveDirectoryConfig"]["GroupManagedServiceAccounts"][0]), None),
    ],
)
def test_errors_that_can_be_mended(change: tuple[str, Any], corrected: Any) -> None:
    findings = lint_document(changed(change))
    assert [f.fixable for f in findings if f.severity is Severity.ERROR] == [True]
    document, done = fixed(changed(change))
    assert done
    assert problems_of(document) == ()
    if corrected is not None:
        target: Any = document
        for token in change[0].split("/")[1:]:
            target = target[token]
        assert target == corrected


def test_secrets_are_never_quoted() -> None:
    for given in ("contoso:reader:Passw0rd", "Password=Passw0rd", {"Password": "Passw0rd"}, 7):
        shown = str(lint_document(changed((f"{HOST}/PluginInput", given))))
        assert "Passw0rd" not in shown


def test_pointers_lead_into_a_kubernetes_object() -> None:
    wrapper = {"kind": "GMSACredentialSpec", "credspec": changed((f"{DOMAIN}/Sid", GONE))}
    assert found(wrapper) == [("lint-domain-field-missing", f"/credspec{DOMAIN}/Sid", False)]
    corrected, done = fixed(
        {"kind": "GMSACredentialSpec", "credspec": changed(("/CmsPlugins", GONE))}
    )
    assert (corrected["kind"], len(done)) == ("GMSACredentialSpec", 1)


def test_there_is_an_end_to_findings() -> None:
    document = changed()
    entries = document["ActiveDirectoryConfig"]["GroupManagedServiceAccounts"]
    entries += [{"Name": f"account{n}$", "Scope": "EMEA"} for n in range(190)]
    findings = lint_document(document)
    assert len(findings) == MAX_FINDINGS + 1
    assert findings[-1] == Finding(
        Severity.WARNING,
        findings[-1].problem._replace(code="spec-more-problems", found="90 more problems"),
    )


@pytest.mark.parametrize("path", sorted((HERE / "samples").glob("*.json")), ids=lambda p: p.stem)
def test_no_sample_has_an_error(path: Path) -> None:
    assert all(f.severity is Severity.WARNING for f in lint_bytes(path.read_bytes()))


def test_mending_keeps_what_it_does_not_mend() -> None:
    for document in (GOOD, 7, "x", None, [], {"CmsPlugins": [1]}):
        corrected, done = fixed(document)
        assert (corrected, done) == (document, ())


def test_a_document_with_a_repeated_key_is_not_mended() -> None:
    from credspec.spec.strict_json import parse_json

    document = parse_json('{"CmsPlugins": 1, "CmsPlugins": 2}')
    assert fixed(document) == (document, ())


def test_a_rule_is_in_the_registry_once_with_its_own_code_and_reason() -> None:
    rules = list(RULES.values())
    assert len({rule.reason for rule in rules}) == len({type(rule) for rule in rules}) == len(rules)
    assert all(code == rule.code and code.startswith("lint-") for code, rule in RULES.items())
    assert {rule.code for each in FIX_ORDER for rule in each.rules if rule.fixable} | {
        rule.code for rule in KEYS.rules if rule.fixable
    } == {code for code, rule in RULES.items() if rule.fixable}


def test_entries_that_are_one_object_are_removed_one_by_one() -> None:
    entry, other = {"Name": "webapp01", "Scope": "EMEA"}, {"Name": "logs", "Scope": "EMEA"}
    document = changed((ACCOUNTS, [other, entry, entry, 5, entry, other]))
    corrected, done = fixed(document)
    dns = "emea.contoso.com"
    assert corrected["ActiveDirectoryConfig"]["GroupManagedServiceAccounts"] == [
        other,
        entry,
        {"Name": "webapp01", "Scope": dns},
        5,
    ]
    assert done == (
        *("removed the second entry of webapp01 with scope EMEA",) * 2,
        "removed the second entry of logs with scope EMEA",
        f"added an entry of webapp01 with scope {dns}",
    )


def test_the_typed_model_follows_the_schema() -> None:
    """Each described property is a field of its class, and the other way round."""
    classes = {
        "": CredentialSpec,
        "DomainJoinConfig": DomainJoinConfig,
        "ActiveDirectoryConfig": ActiveDirectoryConfig,
        "GroupManagedServiceAccounts": GroupManagedServiceAccount,
        "HostAccountConfig": HostAccountConfig,
    }
    for place, model in classes.items():
        fields = {name.replace("_", "") for name in model.__dataclass_fields__} - {"extra"}
        assert {key.lower() for key in described_keys(place)} == fields, place
    # Every object of the schema has its class.
    described = [place for place in _properties(json.loads(schema_text())) if described_keys(place)]
    assert set(described) | {""} == set(classes)


def _properties(schema: dict[str, Any]) -> list[str]:
    names = list(schema.get("properties", {}))
    below = [
        *schema.get("properties", {}).values(),
        *([schema["items"]] if "items" in schema else []),
    ]
    return names + [name for part in below for name in _properties(part)]


def test_every_property_of_the_schema_has_a_description() -> None:
    def check(schema: dict[str, Any]) -> None:
        assert schema.get("description")
        for part in schema.get("properties", {}).values():
            check(part)
        if "items" in schema:
            check(schema["items"])

    check(json.loads(schema_text()))


@pytest.mark.parametrize(
    "document",
    [
        {"apiVersion": "v1", "kind": "Pod", "spec": {}},
        {"credspec": GOOD},
        {"services": {"web": {}}},
        {"HostConfig": {}},
    ],
)
def test_files_of_other_tools_are_never_fixed(document: dict[str, Any]) -> None:
    assert fixed(document) == (document, ())
    assert not any(finding.fixable for finding in lint_document(document))
