"""The address opens the page once; everything else is refused."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from credspec.status_page.access import Access


def test_the_token_leads_to_the_page_once() -> None:
    access = Access()
    place = access.enter(access.token)
    assert place is not None
    assert access.resource(place) == ""
    assert access.resource(f"{place}feed") == "feed"
    assert access.enter(access.token) is None


def test_a_wrong_token_does_not_use_it_up() -> None:
    access = Access()
    assert access.enter("wrong") is None
    assert access.enter("") is None
    assert access.enter(access.token) is not None


def test_two_commands_have_nothing_in_common() -> None:
    first, second = Access(), Access()
    place = first.enter(first.token)
    assert place is not None
    assert second.enter(first.token) is None
    assert second.resource(place) is None
    assert first.token not in place


@given(st.text())
def test_no_other_path_is_one_of_the_page(path: str) -> None:
    access = Access()
    assert access.resource(path) is None
    assert access.resource(f"/{path}") is None
    assert access.enter(path) is None
