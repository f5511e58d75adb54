import json
import time
from copy import deepcopy
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credspec.spec.strict_json import parse_json
from credspec.spec.validation import problems_of, schema_text

SID = "S-1-5-21-702590844-1001920913-2680819671"

SPEC: dict[str, Any] = {
    "CmsPlugins": ["ActiveDirectory"],
    "DomainJoinConfig": {
        "Sid": SID,
        "MachineAccountName": "webapp01",
        "Guid": "56d9b66c-d746-4f87-bd26-26760cfdca2e",
        "DnsTreeName": "contoso.com",
        "DnsName": "contoso.com",
        "NetBiosName": "CONTOSO",
    },
    "ActiveDirectoryConfig": {
        "GroupManagedServiceAccounts": [
            {"Name": "webapp01", "Scope": "contoso.com"},
            {"Name": "webapp01", "Scope": "CONTOSO"},
        ],
        "HostAccountConfig": {
            "PortableCcgVersion": "1",
            "PluginGUID": "{859E1386-BDB4-49E8-85C7-3070B13920E1}",
            "PluginInput": "contoso.com:reader:Passw0rd!",
        },
    },
}
ABSENT = object()


def spec_with(pointer: str, value: Any) -> dict[str, Any]:
    """Return the spec with one member set, or removed for `ABSENT`."""
    document = deepcopy(SPEC)
    target: Any = document
    *parents, last = pointer.split("/")[1:]
    for token in parents:
        target = target[int(token) if isinstance(target, list) else token]
    if isinstance(target, list):
        target[int(last)] = value
    elif value is ABSENT:
        del target[last]
    else:
        target[last] = value
    return document


def found(document: Any) -> list[tuple[str, str]]:
    return [(problem.code, problem.where) for problem in problems_of(document)]


DOMAIN = "/DomainJoinConfig"
DIRECTORY = "/ActiveDirectoryConfig"
ACCOUNTS = f"{DIRECTORY}/GroupManagedServiceAccounts"
HOST = f"{DIRECTORY}/HostAccountConfig"


def test_accepts_a_full_document() -> None:
    assert problems_of(SPEC) == ()


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/CmsPlugins", ["Other", "ActiveDirectory"]),
        (f"{DOMAIN}/Sid", f"{SID}-1105"),
        (f"{DOMAIN}/Sid", SID.lower()),
        (f"{DOMAIN}/Sid", "S-1-5-21-0-1-4294967295"),
        (f"{DOMAIN}/Guid", "{56D9B66C-D746-4F87-BD26-26760CFDCA2E}"),
        (f"{DOMAIN}/DnsName", "contoso"),
        (f"{DOMAIN}/DnsName", "_a.b-c.EXAMPLE"),
        (f"{DOMAIN}/DnsName", ".".join(["a" * 63] * 3 + ["b" * 61])),
        (f"{DOMAIN}/MachineAccountName", "webapp01$"),
        (f"{DOMAIN}/MachineAccountName", "wébapp01"),
        (f"{DOMAIN}/MachineAccountName", "a-name-that-is-longer-than-fourteen"),
        (f"{DOMAIN}/Sid", ABSENT),
        (f"{DOMAIN}/Guid", ABSENT),
        (f"{DOMAIN}/DnsTreeName", ABSENT),
        (f"{DOMAIN}/NetBiosName", ABSENT),
        (f"{DOMAIN}/MachineAccountName", ABSENT),
        (f"{DOMAIN}/Unknown", [None]),
        (HOST, ABSENT),
        (HOST, {}),
        (f"{HOST}/PluginInput", {"CredentialArn": "arn:aws:secretsmanager:eu-west-1"}),
        (f"{HOST}/PluginInput", {}),
        (f"{HOST}/PluginGUID", "859E1386-BDB4-49E8-85C7-3070B13920E1"),
        (f"{HOST}/PluginGUID", "{GDMA0342-266A-4D1P-831J-20990E82944F}"),
        (f"{HOST}/PortableCcgVersion", "2"),
        ("/Unknown", {"a": 1}),
    ],
)
def test_accepts(pointer: str, value: Any) -> None:
    assert problems_of(spec_with(pointer, value)) == ()


@pytest.mark.parametrize(
    ("pointer", "value", "code"),
    [
        ("/CmsPlugins", ABSENT, "spec-field-missing"),
        ("/CmsPlugins", [], "spec-plugin-missing"),
        ("/CmsPlugins", ["activedirectory"], "spec-plugin-missing"),
        ("/CmsPlugins", "ActiveDirectory", "spec-wrong-type"),
        (DOMAIN, ABSENT, "spec-field-missing"),
        (DOMAIN, [], "spec-wrong-type"),
        (DIRECTORY, ABSENT, "spec-field-missing"),
        (DIRECTORY, None, "spec-wrong-type"),
        (f"{DOMAIN}/DnsName", ABSENT, "spec-field-missing"),
        (ACCOUNTS, ABSENT, "spec-field-missing"),
        (ACCOUNTS, [], "spec-accounts-empty"),
        (ACCOUNTS, {}, "spec-wrong-type"),
        (f"{ACCOUNTS}/1", "webapp01", "spec-wrong-type"),
        (f"{ACCOUNTS}/1/Name", ABSENT, "spec-field-missing"),
        (f"{ACCOUNTS}/1/Scope", ABSENT, "spec-field-missing"),
        (HOST, None, "spec-wrong-type"),
        (f"{HOST}/PluginInput", None, "spec-wrong-type"),
        (f"{HOST}/PluginInput", [], "spec-wrong-type"),
        (f"{HOST}/PluginGUID", 1, "spec-wrong-type"),
        (f"{HOST}/PluginGUID", ABSENT, "spec-field-missing"),
        (f"{HOST}/PluginInput", ABSENT, "spec-field-missing"),
        (f"{HOST}/PluginGUID", "{x}", "host-account-guid"),
        (f"{HOST}/PluginGUID", "859E1386-BDB4-49E8-85C7-3070B13920E1}", "host-account-guid"),
        (f"{HOST}/PluginInput", "", "host-account-input"),
        (f"{HOST}/PluginInput", "a\nb", "host-account-input"),
        (f"{HOST}/PluginInput", "x" * (16 * 1024 + 1), "host-account-input"),
        (f"{HOST}/PluginInput", {"a": "x" * 16 * 1024}, "host-account-input"),
        (f"{HOST}/PortableCcgVersion", 1, "spec-wrong-type"),
    ],
)
def test_refuses(pointer: str, value: Any, code: str) -> None:
    assert found(spec_with(pointer, value)) == [(code, pointer)]


@pytest.mark.parametrize(
    "pointer",
    [
        f"{DOMAIN}/MachineAccountName",
        f"{DOMAIN}/NetBiosName",
        f"{DOMAIN}/DnsTreeName",
        f"{ACCOUNTS}/1/Name",
        f"{ACCOUNTS}/0/Scope",
    ],
)
@pytest.mark.parametrize(
    "name",
    [
        *("", " ", ".", "..", "...", ". .", "$", "$$", "..$", " $"),
        *("a/b", "a\\b", "../x", "a\0", "a\n", "\x1b[2J", "a\x7f", "a\x85"),
    ],
)
def test_refuses_names(pointer: str, name: str) -> None:
    code = "account-scope-invalid" if pointer.endswith("Scope") else "spec-name-invalid"
    assert found(spec_with(pointer, name)) == [(code, pointer)]


@pytest.mark.parametrize(
    "name",
    [
        *("CONTOSO.", ".CONTOSO", "contoso.com", "A" * 16, "CON TOSO", "CONTOSO\n", "a:b", "*"),
        *("a@b", "a?", 'a"b', "<a>", "a|b", "\u00a0", "\u2028"),
    ],
)
def test_refuses_netbios_names(name: str) -> None:
    assert found(spec_with(f"{DOMAIN}/NetBiosName", name)) == [
        ("spec-name-invalid", f"{DOMAIN}/NetBiosName")
    ]


@pytest.mark.parametrize("name", ["A", "A" * 15, "contoso", "CON-TOSO_1", "CÖNTOSO", "1"])
def test_takes_netbios_names(name: str) -> None:
    assert found(spec_with(f"{DOMAIN}/NetBiosName", name)) == []


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "contoso.com.", ".contoso.com", "contoso..com", "-a.com", "a-.com"),
        *("contoso .com", "contoso.com\n", "con/toso", "cöntoso.com", "a" * 64, "*.contoso.com"),
        ".".join(["a" * 63] * 3 + ["b" * 62]),
    ],
)
def test_refuses_dns_names(name: str) -> None:
    assert found(spec_with(f"{DOMAIN}/DnsName", name)) == [
        ("spec-dns-name-invalid", f"{DOMAIN}/DnsName")
    ]


@pytest.mark.parametrize(
    "sid",
    [
        *("", "S-1-5-21-1-2", "S-1-5-21-1-2-3-4-5", "S-1-5-32-544", "S-1-5-21-1-2-x", f"{SID} "),
        *("S-1-5-21-1-2-4294967296", "S-1-5-21-1-2--3", "S-1-5-21-1-2-03", "S-1-5-21-1-2-٣"),
    ],
)
def test_refuses_sids(sid: str) -> None:
    assert found(spec_with(f"{DOMAIN}/Sid", sid)) == [("spec-sid-invalid", f"{DOMAIN}/Sid")]


@pytest.mark.parametrize(
    "guid",
    [
        *("", "56d9b66cd7464f87bd2626760cfdca2e", "{56d9b66c-d746-4f87-bd26-26760cfdca2e"),
        *("56d9b66c-d746-4f87-bd26-26760cfdca2g", "56d9b66c-d746-4f87-bd26-26760cfdca2e\n"),
    ],
)
def test_refuses_guids(guid: str) -> None:
    assert found(spec_with(f"{DOMAIN}/Guid", guid)) == [("spec-guid-invalid", f"{DOMAIN}/Guid")]


@pytest.mark.parametrize("number", [0, 9, 10, 999999999, 1000000000, 2**32 - 1])
def test_accepts_every_length_of_sub_authority(number: int) -> None:
    assert problems_of(spec_with(f"{DOMAIN}/Sid", f"S-1-5-21-{number}-{number}-{number}")) == ()


def test_reports_every_problem_at_once() -> None:
    document = {
        "CmsPlugins": [1],
        "DomainJoinConfig": {"Sid": "x", "Guid": 5, "NetBiosName": "..", "a": float("nan")},
        "ActiveDirectoryConfig": {"GroupManagedServiceAccounts": [{}, 3]},
    }
    assert sorted(found(document)) == [
        ("spec-field-missing", f"{ACCOUNTS}/0/Name"),
        ("spec-field-missing", f"{ACCOUNTS}/0/Scope"),
        ("spec-field-missing", f"{DOMAIN}/DnsName"),
        ("spec-name-invalid", f"{DOMAIN}/NetBiosName"),
        ("spec-number-range", f"{DOMAIN}/a"),
        ("spec-plugin-missing", "/CmsPlugins"),
        ("spec-sid-invalid", f"{DOMAIN}/Sid"),
        ("spec-wrong-type", f"{ACCOUNTS}/1"),
        ("spec-wrong-type", "/CmsPlugins/0"),
        ("spec-wrong-type", f"{DOMAIN}/Guid"),
    ]


def test_what_is_no_json_is_reported_as_that_alone() -> None:
    """Not also for the value that stands for it in what is looked at further."""
    for value, code in ((float("inf"), "spec-number-range"), (b"x", "spec-wrong-type")):
        assert found(spec_with(f"{DOMAIN}/Guid", value)) == [(code, f"{DOMAIN}/Guid")]


def test_of_a_repeated_key_the_value_that_is_left_is_looked_at() -> None:
    text = json.dumps(SPEC).replace('"Guid":', '"Guid": "first", "Guid": 5, "x":')
    assert found(parse_json(text)) == [
        ("spec-duplicate-key", f"{DOMAIN}/Guid"),
        ("spec-wrong-type", f"{DOMAIN}/Guid"),
    ]


@pytest.mark.parametrize(
    ("scopes", "is_refused"),
    [
        (("fabrikam.com",), True),
        (("fabrikam.com", "FABRIKAM"), True),
        (("contoso.com",), False),
        (("Contoso.COM.",), False),
        (("contoso",), False),
        (("CONTOSO",), False),
        (("fabrikam.com", "CONTOSO"), False),
        (("CONTOSO", "fabrikam.com"), False),
    ],
)
@pytest.mark.parametrize("default", ["WEBAPP01$", ABSENT])
def test_the_default_account_is_of_the_domain(
    scopes: tuple[str, ...], is_refused: bool, default: Any
) -> None:
    """By at least one of its entries, with either of the domain's names; others may be of any."""
    document = spec_with(f"{DOMAIN}/MachineAccountName", default)
    document["ActiveDirectoryConfig"]["GroupManagedServiceAccounts"] = [
        *({"Name": "webapp01", "Scope": scope} for scope in scopes),
        {"Name": "other", "Scope": "adatum.com"},
    ]
    assert found(document) == [("account-other-domain", ACCOUNTS)] * is_refused
    wrapped = {"kind": "GMSACredentialSpec", "credspec": document}
    expected = [("account-other-domain", f"/credspec{ACCOUNTS}")] * is_refused
    assert found(wrapped) == expected


def test_says_what_was_found_and_expected() -> None:
    (problem,) = problems_of(spec_with(f"{DOMAIN}/Guid", 5))
    assert problem.text() == "/DomainJoinConfig/Guid: a number (5); expected a string"
    (problem,) = problems_of(spec_with(f"{DOMAIN}/Guid", 0.5))
    assert problem.found == "a number (0.5)"
    (problem,) = problems_of([])
    assert problem.text() == "the document is an array; expected an object"


def test_remedy_for_a_key_in_other_letter_case() -> None:
    document = spec_with(f"{DOMAIN}/DnsName", ABSENT)
    document["DomainJoinConfig"]["dnsname"] = "contoso.com"
    (problem,) = problems_of(document)
    assert problem.remedy == 'rename "dnsname" to "DnsName"'


def test_long_values_are_shortened() -> None:
    (problem,) = problems_of(spec_with(f"{DOMAIN}/Sid", "x" * 60000))
    assert len(problem.found) == 60


@pytest.mark.parametrize(
    "document",
    [
        spec_with(f"{HOST}/PluginInput", ["hunter2"]),
        spec_with(f"{HOST}/PluginInput", {"a": "hunter2\ud800"}),
        spec_with(f"{HOST}/PluginInput", ["hunter2", float("nan")]),
        spec_with(HOST, '{"PluginInput": "hunter2"}'),
        spec_with(DIRECTORY, '{"PluginInput": "hunter2"}'),
        '{"PluginInput": "hunter2"}',
        ["hunter2"],
    ],
)
def test_never_shows_plugin_input(document: Any) -> None:
    problems = problems_of(document)
    assert problems
    assert "hunter2" not in "".join(problem.text() for problem in problems)


def test_more_accounts_than_a_container_can_have() -> None:
    entries = [{"Name": f"webapp{i}", "Scope": "contoso.com"} for i in range(200)]
    assert problems_of(spec_with(ACCOUNTS, entries)) == ()
    entries.append(entries[0])
    assert found(spec_with(ACCOUNTS, entries)) == [("accounts-too-many", ACCOUNTS)]


def test_number_in_place_of_plugin_input_is_redacted() -> None:
    (problem,) = problems_of(spec_with(f"{HOST}/PluginInput", 4711))
    assert problem.found == "a number"


def test_looks_into_a_kubernetes_object() -> None:
    wrapped = {"kind": "GMSACredentialSpec", "credspec": deepcopy(SPEC)}
    assert problems_of(wrapped) == ()
    del wrapped["credspec"]["DomainJoinConfig"]["DnsName"]
    assert found(wrapped) == [("spec-field-missing", f"/credspec{DOMAIN}/DnsName")]
    assert found({"kind": "GMSACredentialSpec"}) == [("spec-field-missing", "/credspec")]


@pytest.mark.parametrize("fill", [".", " ", "$", "a", "-", "\\"])
def test_no_pattern_takes_long_on_hostile_names(fill: str) -> None:
    document = spec_with(f"{DOMAIN}/Sid", "S-1-5-21" + "-1" * 30000)
    document["DomainJoinConfig"]["DnsName"] = fill * 60000
    document["DomainJoinConfig"]["NetBiosName"] = fill * 60000 + "/"
    began = time.process_time()
    assert len(problems_of(document)) == 3
    # What tries each start of the name again takes minutes.
    assert time.process_time() - began < 10


def test_schema_is_valid_and_describes_every_field() -> None:
    schema = json.loads(schema_text())
    jsonschema_rs.meta.validate(schema)

    def check(node: dict[str, Any]) -> None:
        assert node.get("description", "").endswith(".")
        for child in (*node.get("properties", {}).values(), *node.get("$defs", {}).values()):
            check(child)
        if "items" in node:
            check(node["items"])

    check(schema)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=10,
)
POINTERS = [
    "/CmsPlugins",
    "/CmsPlugins/0",
    DOMAIN,
    *(f"{DOMAIN}/{key}" for key in SPEC["DomainJoinConfig"]),
    DIRECTORY,
    ACCOUNTS,
    f"{ACCOUNTS}/0",
    f"{ACCOUNTS}/0/Name",
    f"{ACCOUNTS}/1/Scope",
    HOST,
    *(f"{HOST}/{key}" for key in SPEC["ActiveDirectoryConfig"]["HostAccountConfig"]),
]


@given(ANYTHING)
def test_no_value_makes_it_raise(document: Any) -> None:
    assert problems_of(document)


@settings(max_examples=300)
@given(st.sampled_from(POINTERS), ANYTHING)
def test_no_mutation_makes_it_raise(pointer: str, value: Any) -> None:
    for problem in problems_of(spec_with(pointer, value)):
        # A problem is at the mutated value, in it, or at the list it is in.
        assert problem.where.startswith(pointer.removesuffix("/0"))
        assert problem.text().isprintable()
