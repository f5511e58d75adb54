"""Paths without the standard library's module for them, against that module."""

from __future__ import annotations

import posixpath

from hypothesis import given
from hypothesis import strategies as st

from credspec.contract.lease_paths import normal_path


@given(st.lists(st.sampled_from(["/", "//", "///", "..", ".", "a", "b.c", "...", ""])).map("".join))
def test_a_normal_path_is_that_of_the_standard_library(path: str) -> None:
    assert normal_path(path) == posixpath.normpath(path)
