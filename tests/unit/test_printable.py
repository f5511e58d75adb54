"""Text from elsewhere stays one line, and as it is where it harms nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from credspec.printable import printable


@given(st.text())
def test_nothing_moves_the_cursor_or_forges_a_line(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown) == len(text)
    assert all(a in {b, "?"} for a, b in zip(shown, text, strict=True))


def test_letters_stay() -> None:
    assert printable("Müller \N{SNOWMAN} a b") == "Müller \N{SNOWMAN} a b"
    assert printable("a\nb\x1b[2Jc\udcff") == "a?b?[2Jc?"
