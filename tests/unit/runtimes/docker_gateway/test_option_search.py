from __future__ import annotations

import asyncio
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.errors import CredspecError
from credspec.runtimes.docker_gateway import option_search
from credspec.runtimes.docker_gateway.create_request import CreateBody
from credspec.runtimes.docker_gateway.option_search import may_hold_spec

OPTION = "credentialspec"


def found(body: bytes) -> bool:
    return asyncio.run(may_hold_spec(body))


def spelt(chance: random.Random, name: str = OPTION) -> str:
    """A name in one of the ways that JSON and Docker take."""
    letters = []
    for letter in name:
        chosen = chance.choice([letter, letter.upper()])
        code = chance.choice([f"\\u{ord(chosen):04x}", f"\\u{ord(chosen):04X}"])
        letters.append(chance.choice([chosen, code]))
    return "".join(letters)


@pytest.mark.parametrize("seed", range(50))
@pytest.mark.parametrize("before", [0, 65_500, 65_530, 130_000])
def test_it_is_found_however_it_is_spelt_and_wherever(seed: int, before: int) -> None:
    name = spelt(random.Random(seed))
    body = f'{{"X":"{"x" * before}","HostConfig":{{"SecurityOpt":["{name}=file://a.json"]}}}}'
    assert json.loads(body)["HostConfig"]["SecurityOpt"][0].lower().startswith(OPTION)
    assert found(body.encode())


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("before", [0, 65_500, 65_530])
def test_a_spec_in_an_annotation_a_variable_or_a_mount_is_found(seed: int, before: int) -> None:
    name = spelt(random.Random(seed), "credspec")
    for entry in (f'"{name}.dev/spec":"file://a"', f'"/run/{name}":""', f'"{name}=file://a"'):
        assert found(f'{{"X":"{"x" * before}",{entry}'.encode())


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_what_is_not_searched_for_holds_no_spec(value: object) -> None:
    for body in (
        json.dumps({"HostConfig": {"SecurityOpt": value}}).encode(),
        json.dumps({"HostConfig": value}, ensure_ascii=False).encode("utf-8", "surrogatepass"),
    ):
        try:
            create = CreateBody.unpack(body)
        except CredspecError:
            assert found(body)
            continue
        assert create is None or found(body)


def test_what_is_like_it_is_not_it() -> None:
    wide = "\N{FULLWIDTH LATIN SMALL LETTER C}redentialspec"
    for text in ("credential-spec", "credentialspe", "\\u0063redentia", wide):
        assert not found(json.dumps({"X": f"{text} " * 10_000}).encode())


def test_no_step_takes_more_than_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(option_search, "_STEP_BYTES", 1000)
    for start in range(0, 1010, 7):
        assert found(b" " * start + OPTION.encode())
        assert found(b" " * start + "".join(f"\\u{ord(c):04x}" for c in OPTION).encode())
