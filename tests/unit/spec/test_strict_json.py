import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.errors import InvalidSpecError
from credspec.spec.strict_json import MAX_DEPTH, parse_json, pointer_to, unsound_values


def codes(text: str) -> list[tuple[str, str]]:
    _, problems = unsound_values(parse_json(text))
    return [(problem.code, problem.where) for problem in problems]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("// spec\n{}", "line 1 column 1"),
        ('{"a": 1, // one\n"b": 2}', "line 1 column 10"),
        ('{"a": 1 /* one */}', "line 1 column 9"),
        ('{\n# one\n"a": 1}', "line 2 column 1"),
        ("{} // end", "line 1 column 4"),
    ],
)
def test_comment_is_called_one(text: str, where: str) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        parse_json(text)
    assert caught.value.code == "spec-comment"
    assert caught.value.problems[0].where == where


def test_slashes_in_strings_are_no_comments() -> None:
    assert parse_json('{"url": "https://vault // #"}') == {"url": "https://vault // #"}


@pytest.mark.parametrize("text", ["{", "{'a': 1}", '{"a": 1,}', "{} {}", '{"a"}', "nope", "\x01"])
def test_not_json_names_line_and_column(text: str) -> None:
    with pytest.raises(InvalidSpecError, match=r"^line 1 column \d+: not JSON: ") as caught:
        parse_json(text)
    assert caught.value.code == "spec-not-json"


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
def test_hostile_depth_is_an_error(opening: str) -> None:
    with pytest.raises(InvalidSpecError, match="spec-too-deep"):
        parse_json(opening * 10000)


def test_depth_limit_names_the_first_level_too_many() -> None:
    assert codes("[" * MAX_DEPTH + "]" * MAX_DEPTH) == []
    assert codes("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)) == [
        ("spec-too-deep", "/0" * MAX_DEPTH)
    ]


def test_every_doubtful_value_is_named() -> None:
    text = r'{"a": 1, "a": {"b": [NaN, Infinity, -Infinity, 1e400, "\ud800", "x"]}, "\udfff": 0}'
    assert codes(text) == [
        ("spec-duplicate-key", "/a"),
        ("spec-number-range", "/a/b/0"),
        ("spec-number-range", "/a/b/1"),
        ("spec-number-range", "/a/b/2"),
        ("spec-number-range", "/a/b/3"),
        ("spec-lone-surrogate", "/a/b/4"),
        ("spec-lone-surrogate", "/\ufffd"),
    ]


@pytest.mark.parametrize("digits", [400, 5000, 60000])
def test_huge_integers_are_an_error(digits: int) -> None:
    assert codes(f'{{"a": {"9" * digits}, "b": -{"9" * digits}}}') == [
        ("spec-number-range", "/a"),
        ("spec-number-range", "/b"),
    ]


def test_large_integers_are_kept_exactly() -> None:
    assert parse_json(str(2**1023)) == 2**1023
    assert codes(str(2**1023)) == []


def test_surrogate_pairs_are_text() -> None:
    assert codes(r'"\ud83d\ude00"') == []


def test_repeated_keys_take_linear_time() -> None:
    def seconds(keys: int) -> float:
        text = "{" + ",".join(f'"{number}":0' for number in range(keys)) + ',"0":0}'
        began = time.process_time()
        assert codes(text) == [("spec-duplicate-key", "/0")]
        return time.process_time() - began

    # Sixteen times as many; with a look through all for each it would be 256 times as long.
    one, sixteen = (min(seconds(keys) for _ in range(5)) for keys in (400, 6400))
    assert sixteen < 64 * one


@pytest.mark.parametrize("value", [b"x", {1, 2}, object(), {"a": b"x"}, {1: "x"}, [None, 1j]])
def test_python_values_that_are_not_json_are_named(value: object) -> None:
    _, problems = unsound_values(value)
    assert [problem.code for problem in problems] == ["spec-wrong-type"]


def test_pointers_are_escaped() -> None:
    assert pointer_to("/a", "b/c~d") == "/a/b~1c~0d"
    assert pointer_to("", 3) == "/3"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON)
def test_sound_copy_is_the_value_unless_there_are_problems(value: object) -> None:
    sound, problems = unsound_values(value)
    if not problems:
        assert sound == value
    json.dumps(sound, allow_nan=False, ensure_ascii=False).encode()


@given(st.text() | st.text(alphabet='{}[]",:\\u0dD8a1eE+-. /*#\n'))
def test_any_text_gives_a_value_or_an_error(text: str) -> None:
    try:
        value = parse_json(text)
    except InvalidSpecError:
        return
    unsound_values(value)
