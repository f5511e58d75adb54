"""Other spellings of a name, as hypothesis makes them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

_FOLDED = {"s": "\u017f", "k": "\u212a"}
_BLANKS = (" ", "\t", "\u00a0", "\u200b", "\u2060", ".")


@st.composite
def spellings(draw: st.DrawFn, name: str, *, escapes: bool = True) -> str:
    """Return a name that reads as another one, but is not the same text."""
    changed = "".join(_character(draw, character, escapes=escapes) for character in name)
    before, after = draw(_around), draw(_around)
    changed = f"{before}{changed}{after}"
    return changed if changed != name else changed.swapcase()


_around = st.text(st.sampled_from(_BLANKS), max_size=2)


def _character(draw: st.DrawFn, character: str, *, escapes: bool) -> str:
    kind = draw(
        st.sampled_from(["same"] * 6 + ["case", "fold", "wide", "blank", "percent", "json"])
    )
    made: dict[str, Any] = {
        "case": character.swapcase(),
        "fold": _FOLDED.get(character.lower(), character),
        "wide": chr(ord(character) + 0xFEE0) if character.isalnum() else character,
        "blank": character + draw(st.sampled_from(_BLANKS[:-1])),
    }
    if escapes:
        made["percent"] = f"%{ord(character):02x}"
        made["json"] = f"\\u{ord(character):04x}"
    return str(made.get(kind, character))
