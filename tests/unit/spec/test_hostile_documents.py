"""Generated and mutated documents: always a model or a list of problems, never anything else."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credspec.errors import InvalidSpecError
from credspec.spec.conversions import read_any_form
from credspec.spec.document import CredentialSpec
from credspec.spec.encoding import MAX_SPEC_BYTES
from credspec.spec.fixes import fixed
from credspec.spec.json_positions import positions
from credspec.spec.kubernetes import from_kubernetes_yaml
from credspec.spec.lint import Severity, lint_bytes, lint_document
from credspec.spec.strict_json import parse_json
from credspec.spec.validation import described_keys

GOLDEN = Path(__file__).parent / "golden"
FULL = json.loads((GOLDEN / "full.json").read_text("utf-8"))
TEXT = (GOLDEN / "full.json").read_bytes()
KEYS = sorted(
    set().union(
        *map(
            described_keys, ("", "DomainJoinConfig", "ActiveDirectoryConfig", "HostAccountConfig")
        ),
        described_keys("GroupManagedServiceAccounts"),
    )
)
WORDS = [
    *("ActiveDirectory", "contoso.com", "CONTOSO", "webapp01$", "S-1-5-21-1-2-3-4", "..", "a\0b"),
    *("{56d9b66c-d746-4f87-bd26-26760cfdca2e}", "\ud800", "\u2028", "a/b", "x" * 300, "$", "1"),
]

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(WORDS)
)
keys = st.sampled_from(KEYS) | st.sampled_from([key.lower() for key in KEYS]) | st.text(max_size=8)
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=6),
    max_leaves=25,
)


def judged(data: bytes) -> None:
    """Reading and linting must agree, and end in nothing but a model or problems."""
    findings = lint_bytes(data)
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    try:
        spec = CredentialSpec.from_bytes(data)
    except InvalidSpecError as error:
        assert errors
        assert all(problem.code and problem.found for problem in error.problems)
        assert all(line.isprintable() for line in str(error).split("\n"))
    else:
        assert not errors
        assert CredentialSpec.from_text(spec.to_text()) == spec


@settings(max_examples=2500, deadline=None)
@given(documents)
def test_any_value(document: Any) -> None:
    findings = lint_document(document)
    corrected, done = fixed(document)
    again, nothing = fixed(corrected)
    assert nothing == (), done
    assert repr(again) == repr(corrected)
    assert not any(finding.fixable for finding in lint_document(corrected)), findings
    judged(json.dumps(document).encode("utf-8", "surrogatepass"))


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A valid document with some members replaced, removed, renamed or doubled."""
    document = json.loads(TEXT)
    for _ in range(draw(st.integers(1, 4))):
        target = document
        while True:
            places = list(target) if isinstance(target, dict) else list(range(len(target)))
            if not places:
                break
            place = draw(st.sampled_from(places))
            below = target[place]
            if isinstance(below, dict | list) and draw(st.booleans()):
                target = below
                continue
            match draw(st.sampled_from(["replace", "remove", "rename", "double"])):
                case "replace":
                    target[place] = draw(documents)
                case "remove":
                    del target[place]
                case "rename" if isinstance(target, dict):
                    target[draw(keys)] = target.pop(place)
                case "double" if isinstance(target, list):
                    target.append(target[place])
            break
    return document


@settings(max_examples=2500, deadline=None)
@given(mutated())
def test_mutated_documents(document: Any) -> None:
    lint_document(document)
    corrected, _ = fixed(document)
    assert fixed(corrected)[1] == ()
    assert not any(finding.fixable for finding in lint_document(corrected))
    judged(json.dumps(document).encode("utf-8", "surrogatepass"))


@settings(max_examples=2500, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, len(TEXT) - 1), st.integers(0, 12), st.binary(max_size=6)),
        min_size=1,
        max_size=4,
    )
)
def test_mutated_bytes(changes: list[tuple[int, int, bytes]]) -> None:
    data = bytearray(TEXT)
    for at, length, value in changes:
        data[at : at + length] = value
    judged(bytes(data))


@settings(max_examples=1000, deadline=None)
@given(
    st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "ignore"))
)
def test_any_bytes(data: bytes) -> None:
    judged(data)


json_text = st.text(alphabet='{}[]",:\\ \n\t-0123456789.eEtrufalsn/#*abcu', max_size=60)


@settings(max_examples=2000, deadline=None)
@given(json_text)
def test_texts_that_are_nearly_json(text: str) -> None:
    judged(text.encode())
    places = positions(text)
    assert all(1 <= line <= text.count("\n") + 1 for line, _ in places.values())


@settings(max_examples=1000, deadline=None)
@given(
    st.text(max_size=80)
    | st.text(alphabet="{}[]\"',:-?&*!|> \n\tabc~<%@`#01", max_size=60)
    | st.binary(max_size=80).map(lambda data: data.decode("latin-1"))
)
def test_any_yaml(text: str) -> None:
    for read in (from_kubernetes_yaml, lambda text: read_any_form(text.encode("utf-8", "ignore"))):
        try:
            document = read(text)
        except InvalidSpecError as error:
            assert all(line.isprintable() for line in str(error).split("\n"))
        else:
            lint_document(document)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b'{"DomainJoinConfig":' * 3000 + b"{}" + b"}" * 3000,
        b"9" * 60_000,
        b"-1e999999",
        b'{"CmsPlugins": [' + b"1" * 30_000 + b"]}",
        b'{"a": 1, "a": 2}',
        b'"\\ud800"',
        b'{"\\udfff": "\\ud800"}',
        b"\xef\xbb\xbf\xef\xbb\xbf{}",
        b"\xff\xfe{\x00",
        b"\xff\xfe\x00\xd8",
        b"\xfe\xff",
        b"\x00",
        b"{}\x00",
        b'{"a": "\x01"}',
        b'{"a": "\x1b[31m"}',
        b"NaN",
        b"[Infinity]",
        b"",
        b" " * MAX_SPEC_BYTES,
        b'{"k": "' + b"\\u0000" * 10_000 + b'"}',
    ],
    ids=range(22),
)
def test_hostile_texts(data: bytes) -> None:
    judged(data)
    assert any(finding.severity is Severity.ERROR for finding in lint_bytes(data))


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_the_limit_of_64_kib(more: int) -> None:
    padding = b" " * (MAX_SPEC_BYTES + more - len(TEXT))
    findings = lint_bytes(TEXT + padding)
    codes = [finding.problem.code for finding in findings if finding.severity is Severity.ERROR]
    assert codes == (["spec-too-large"] if more > 0 else [])
    judged(TEXT + padding)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 20_000,
        "{" * 20_000,
        "- " * 20_000,
        "? " * 20_000,
        "a: &x [*x]",
        "a: &x 1\nb: *x",
        "!!python/object/apply:os.system [id]",
        "!<tag:yaml.org,2002:int> 1",
        "a: 1\na: 2",
        "a: 1\n---\nb: 2",
        "\ta: 1",
        "%YAML 9.9\n---\na: 1",
        "a: \x00",
        'a: "\ud800"',
        "? [a]\n: 1",
        "1: 2",
        "",
        "# nothing",
    ],
)
def test_hostile_yaml(text: str) -> None:
    with pytest.raises(InvalidSpecError):
        from_kubernetes_yaml(text)


def test_yaml_scalars_are_those_of_json() -> None:
    text = "[1, 1.5, true, null, ~, yes, 0x10, 017, 2026-11-23, 12:30:45, 1_000, .inf, '1', 1e3]"
    assert from_kubernetes_yaml(text) == [
        *(1, 1.5, True, None, None, "yes", "0x10", "017", "2026-11-23", "12:30:45", "1_000"),
        *(".inf", "1", 1000.0),
    ]


def test_the_positions_are_those_of_a_parser() -> None:
    text = '{\n  "a~/b": [10, {"c": "x"}],\n  "d": ""\n}'
    assert positions(text) == {
        "": (1, 1),
        "/a~0~1b": (2, 3),
        "/a~0~1b/0": (2, 12),
        "/a~0~1b/1": (2, 16),
        "/a~0~1b/1/c": (2, 17),
        "/d": (3, 3),
    }


@settings(max_examples=500, deadline=None)
@given(
    st.recursive(
        st.none() | st.text(string.printable, max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text(string.printable, max_size=5), inner, max_size=3)
        ),
        max_leaves=15,
    )
)
def test_every_member_has_a_position(document: Any) -> None:
    text = json.dumps(document, indent=2)

    def pointers(value: Any, at: str) -> list[str]:
        if isinstance(value, dict):
            pairs = [(k.replace("~", "~0").replace("/", "~1"), v) for k, v in value.items()]
        elif isinstance(value, list):
            pairs = [(str(i), v) for i, v in enumerate(value)]
        else:
            pairs = []
        return [at, *(p for name, inner in pairs for p in pointers(inner, f"{at}/{name}"))]

    assert set(positions(text)) == set(pointers(parse_json(text), ""))
