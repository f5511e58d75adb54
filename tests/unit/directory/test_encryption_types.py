from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.directory.encryption_types import encryption_type_problems

ALL = frozenset({17, 18, 23})


@pytest.mark.parametrize(
    ("supported", "keys", "codes"),
    [
        (None, ALL, []),
        (frozenset(), ALL, ["account-enctypes-unusable"]),
        ({23}, ALL, ["account-rc4-only"]),
        ({23}, {17, 18}, ["account-rc4-only", "keytab-enctype-missing"]),
        ({18}, {23}, ["keytab-enctype-missing"]),
        ({17, 18}, {18}, []),
        ({18}, frozenset(), []),
    ],
)
def test_what_is_wrong(supported: frozenset[int], keys: frozenset[int], codes: list[str]) -> None:
    types = None if supported is None else frozenset(supported)
    assert [p.code for p in encryption_type_problems("WebApp01$", types, keys)] == codes


@given(st.frozensets(st.sampled_from([17, 18, 23])), st.frozensets(st.integers(1, 30)))
def test_aes_that_the_keytab_has_is_never_a_problem(
    supported: frozenset[int], keys: frozenset[int]
) -> None:
    problems = encryption_type_problems("WebApp01$", supported | {18}, keys | {18})
    assert problems == ()
