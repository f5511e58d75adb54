import json
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credspec.errors import InvalidSpecError
from credspec.spec.document import (
    ActiveDirectoryConfig,
    CredentialSpec,
    DomainJoinConfig,
    GroupManagedServiceAccount,
    HostAccountConfig,
)
from credspec.spec.encoding import MAX_SPEC_BYTES, decode_spec
from support.specs.generated_specs import SPECS

HERE = Path(__file__).parent
SAMPLES = sorted((HERE / "samples").glob("*.json"))
GOLDEN = HERE / "golden"

MINIMAL: dict[str, Any] = {
    "CmsPlugins": ["ActiveDirectory"],
    "DomainJoinConfig": {"DnsName": "Contoso.COM"},
    "ActiveDirectoryConfig": {
        "GroupManagedServiceAccounts": [
            {"Name": "WebApp01$", "Scope": "contoso.com"},
            {"Name": "sql", "Scope": "contoso.com"},
            {"Name": "webapp01", "Scope": "CONTOSO"},
        ]
    },
}


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_accepts_every_variant_of_the_field(path: Path) -> None:
    spec = CredentialSpec.from_bytes(path.read_bytes())
    assert spec.accounts == ("webapp01",)
    assert spec.default_account == "webapp01"
    assert spec.domain in {"contoso.com", "contoso"}


@pytest.mark.parametrize(
    "path", [p for p in SAMPLES if p.stem != "kubernetes_object"], ids=lambda path: path.stem
)
def test_samples_survive_the_round_trip(path: Path) -> None:
    document = json.loads(decode_spec(path.read_bytes()))
    spec = CredentialSpec.from_json(document)
    assert spec.to_json() == document
    assert CredentialSpec.from_text(spec.to_text()) == spec
    assert CredentialSpec.from_text(spec.to_text(compact=True)) == spec


@pytest.mark.parametrize(
    "name",
    ["windows_powershell_5", "powershell_7", "webhook_compact", "kubernetes_object", "utf_16_le"],
)
def test_same_document_in_any_form_is_written_the_same(name: str) -> None:
    spec = CredentialSpec.from_bytes((HERE / "samples" / f"{name}.json").read_bytes())
    assert spec.to_text() == (GOLDEN / "plain.json").read_text(encoding="utf-8")
    compact = (GOLDEN / "plain_compact.json").read_text(encoding="utf-8")
    assert spec.to_text(compact=True) == compact


@pytest.mark.parametrize("name", ["plain", "full"])
def test_golden_files_are_a_fixed_point(name: str) -> None:
    text = (GOLDEN / f"{name}.json").read_text(encoding="utf-8")
    assert CredentialSpec.from_text(text).to_text() == text


def test_unknown_keys_come_back_behind_the_known_ones() -> None:
    document = {"Extra": 1, **deepcopy(MINIMAL)}
    document["DomainJoinConfig"] = {"Other": [1], "NetBiosName": "C", "DnsName": "contoso.com"}
    written = CredentialSpec.from_json(document).to_json()
    assert list(written)[-1] == "Extra"
    assert list(written["DomainJoinConfig"]) == ["DnsName", "NetBiosName", "Other"]


def test_comments_are_refused_with_their_line() -> None:
    with pytest.raises(InvalidSpecError, match="line 13 column 3: a comment"):
        CredentialSpec.from_bytes((HERE / "samples/refused/comments.json").read_bytes())


def test_reads_the_fields() -> None:
    text = (GOLDEN / "full.json").read_text(encoding="utf-8")
    spec = CredentialSpec.from_text("\ufeff" + text)
    assert spec == CredentialSpec(
        cms_plugins=("ActiveDirectory", "Other"),
        domain_join_config=DomainJoinConfig(
            sid="S-1-5-21-702590844-1001920913-2680819671",
            machine_account_name="wébapp",
            guid="56d9b66c-d746-4f87-bd26-26760cfdca2e",
            dns_tree_name="contoso.com",
            dns_name="contoso.com",
            net_bios_name="CONTOSO",
            extra={"Forest": "kept"},
        ),
        active_directory_config=ActiveDirectoryConfig(
            group_managed_service_accounts=(
                GroupManagedServiceAccount(
                    name="wébapp", scope="contoso.com", extra={"Comment": "kept"}
                ),
            ),
            host_account_config=HostAccountConfig(
                portable_ccg_version="1",
                plugin_guid="{859E1386-BDB4-49E8-85C7-3070B13920E1}",
                plugin_input={"CredentialArn": "arn:aws:ssm:eu-west-1:0:parameter/gmsa"},
                extra={"Timeout": 5},
            ),
            extra={"Extra": [1, None, 1.5]},
        ),
        extra={"Version": 2},
    )


def test_accounts_are_unique_whatever_their_letter_case() -> None:
    spec = CredentialSpec.from_json(MINIMAL)
    assert spec.accounts == ("WebApp01", "sql")
    assert spec.default_account == "WebApp01"
    assert spec.domain == "contoso.com"


def test_default_account_is_the_machine_account_name() -> None:
    document = deepcopy(MINIMAL)
    document["DomainJoinConfig"]["MachineAccountName"] = "SQL$"
    assert CredentialSpec.from_json(document).default_account == "SQL"


def test_none_is_not_written() -> None:
    spec = CredentialSpec.from_json(MINIMAL)
    assert spec.domain_join_config.sid is None
    assert spec.to_json() == MINIMAL


def test_repr_redacts_plugin_input_and_unknown_keys() -> None:
    document = deepcopy(MINIMAL)
    document["ActiveDirectoryConfig"]["HostAccountConfig"] = {
        "PluginGUID": "{859E1386-BDB4-49E8-85C7-3070B13920E1}",
        "PluginInput": "contoso.com:reader:hunter2",
        "pluginInput": "hunter2",
    }
    document["hostAccountConfig"] = {"PluginInput": "hunter2"}
    text = repr(CredentialSpec.from_json(document))
    assert "hunter2" not in text
    assert "<redacted>" in text
    assert "{859E1386" in text


def test_is_hashable_and_does_not_share_with_its_source() -> None:
    document = {**deepcopy(MINIMAL), "Extra": {"list": [1]}}
    spec = CredentialSpec.from_json(document)
    assert hash(spec) == hash(CredentialSpec.from_json(document))
    document["Extra"]["list"].append(2)
    spec.to_json()["Extra"]["list"].append(3)
    assert spec.extra == {"Extra": {"list": [1]}}


def test_compact_form_is_one_line_for_every_reader() -> None:
    document = {**MINIMAL, "Extra": "a\n\u0085\u2028\u2029\0é"}
    text = CredentialSpec.from_json(document).to_text(compact=True)
    assert len(text.splitlines()) == 1
    assert "é" in text
    assert "\0" not in text
    assert json.loads(text) == document


def test_number_of_reported_problems_is_bounded() -> None:
    document = {**MINIMAL, "CmsPlugins": ["ActiveDirectory", *range(900)]}
    with pytest.raises(InvalidSpecError) as caught:
        CredentialSpec.from_json(document)
    assert len(caught.value.problems) == 101
    assert caught.value.problems[-1].found == "800 more problems"


@pytest.mark.parametrize(
    "document",
    [
        {**MINIMAL, "CmsPlugins": ["ActiveDirectory", *range(30_000)]},
        {**MINIMAL, "Pad": {str(n): [{}, {}] for n in range(5000)}},
        [[[]] * 1000] * 10,
    ],
)
def test_documents_of_thousands_of_values_cost_little(document: Any) -> None:
    """The validator would take a second of processor time for each of them."""
    before = time.thread_time()
    with pytest.raises(InvalidSpecError) as caught:
        CredentialSpec.from_json(document)
    assert [problem.code for problem in caught.value.problems] == ["spec-too-many-values"]
    assert time.thread_time() - before < 0.1


def test_a_spec_of_a_hundred_accounts_is_valid() -> None:
    accounts = [{"Name": f"WebApp{n}", "Scope": "contoso.com"} for n in range(100)]
    config = {"ActiveDirectoryConfig": {"GroupManagedServiceAccounts": accounts}}
    spec = CredentialSpec.from_json(MINIMAL | config)
    assert len(spec.active_directory_config.group_managed_service_accounts) == 100


def padded(size: int) -> bytes:
    text = json.dumps({**MINIMAL, "Pad": ""}).encode()
    return text[:-2] + b"x" * (size - len(text)) + text[-2:]


def test_size_limit_is_inclusive() -> None:
    assert CredentialSpec.from_bytes(padded(MAX_SPEC_BYTES)).domain == "contoso.com"
    assert CredentialSpec.from_text(padded(MAX_SPEC_BYTES).decode()).domain == "contoso.com"
    for read in (CredentialSpec.from_bytes, lambda data: CredentialSpec.from_text(data.decode())):
        with pytest.raises(InvalidSpecError, match="spec-too-large"):
            read(padded(MAX_SPEC_BYTES + 1))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "spec-empty"),
        ("\ufeff", "spec-empty"),
        ("{}\0", "spec-nul"),
        ("www.json", "spec-not-json"),
        ("null", "spec-wrong-type"),
        ('"text"', "spec-wrong-type"),
        ("5", "spec-wrong-type"),
        ("NaN", "spec-number-range"),
        ("[" * 60000, "spec-too-deep"),
        ("\udcff", "spec-not-json"),
        ('"\udcff"', "spec-lone-surrogate"),
        ('{"CmsPlugins": [], "CmsPlugins": []}', "spec-duplicate-key"),
    ],
)
def test_refuses_text(text: str, code: str) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        CredentialSpec.from_text(text)
    assert caught.value.code == code


@settings(max_examples=150)
@given(SPECS)
def test_every_valid_document_survives_the_round_trip(document: Any) -> None:
    spec = CredentialSpec.from_json(document)
    assert spec.to_json() == document
    for text in (spec.to_text(), spec.to_text(compact=True)):
        assert CredentialSpec.from_text(text) == spec
        for encoding in ("utf-8", "utf-8-sig", "utf-16"):
            assert CredentialSpec.from_bytes(text.encode(encoding)) == spec
    assert spec.default_account
    assert all(spec.accounts)
    repr(spec)


@settings(max_examples=300)
@given(st.data())
def test_mutated_bytes_give_a_spec_or_an_error(data: st.DataObject) -> None:
    original = bytearray((GOLDEN / "full.json").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(original)))
        end = data.draw(st.integers(start, min(len(original), start + 8)))
        original[start:end] = data.draw(st.binary(max_size=4) | st.sampled_from([b'"', b"{", b"]"]))
    try:
        spec = CredentialSpec.from_bytes(bytes(original))
    except InvalidSpecError as error:
        assert str(error).replace("\n", "").isprintable()
        return
    assert CredentialSpec.from_text(spec.to_text()) == spec
