from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.contract.spelling import go_equal, is_in_domain, is_misspelt, skeleton
from credspec.contract.ticket_options import ANNOTATIONS, VARIABLES
from support.specs.spellings import spellings


@pytest.mark.parametrize("name", [*ANNOTATIONS, *VARIABLES])
def test_a_known_name_is_not_misspelt(name: str) -> None:
    assert is_misspelt(name, [name]) is None


@given(
    st.sampled_from([*ANNOTATIONS, *VARIABLES]).flatmap(
        lambda n: st.tuples(st.just(n), spellings(n))
    )
)
def test_any_spelling_is_told_from_the_name(pair: tuple[str, str]) -> None:
    name, spelt = pair
    assert is_misspelt(spelt, [*ANNOTATIONS, *VARIABLES]) == name


@given(st.text())
def test_any_text_is_one_or_the_other(text: str) -> None:
    assert is_misspelt(text, ANNOTATIONS) in {None, *ANNOTATIONS}
    is_in_domain(text)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("credspec.dev/specs", True),
        ("Credspec.DEV/x", True),
        ("credspec.dev", True),
        ("credspec.dev./spec", True),
        ("credspec.development.example/x", False),
        ("credspec.dev-tools.example/x", False),
        ("example.test/credspec.dev/spec", False),
        ("io.kubernetes.cri.container-type", False),
    ],
)
def test_names_in_our_domain(name: str, expected: bool) -> None:
    assert is_in_domain(name) == expected


def test_go_takes_some_names_for_the_same() -> None:
    assert go_equal("HostConfig", "hostconfig")
    assert go_equal("HostConfig", "Ho\u017ftConfig")
    # Python's case folding takes these for the same, Go's does not.
    assert not go_equal("HostConfig", "HostCon\ufb01g")
    assert skeleton("HostCon\ufb01g") == skeleton("HostConfig")
