"""Names of annotations, labels and variables in another spelling than ours.

An engine passes any name on, so one that is merely close would be a container without an identity
silently. Standard library only: it runs on the path of every container with a spec.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself costs milliseconds
    from collections.abc import Iterable

DOMAIN = "credspec.dev"


def skeleton(name: str) -> str:
    """Return what stays of a name without case, blanks, punctuation and escapes.

    Compatibility forms of letters count as the letters (Unicode's NFKC and case folding); percent
    and JSON escapes, also of escapes, as what they stand for.
    """
    return "".join(filter(str.isalnum, _folded(name)))


def is_misspelt(name: str, known: Iterable[str]) -> str | None:
    """Return the known name of which this is another spelling, None for any other name.

    A known name itself is none either.
    """
    known = list(known)
    if name in known or _is_plain(name):
        return None
    found = skeleton(name)
    return next((right for right in known if skeleton(right) == found), None)


def is_in_domain(name: str) -> bool:
    """Return whether a name is one of credspec's as an annotation: ``credspec.dev/...``."""
    if _is_plain(name):
        return False
    folded = "".join(_folded(name).split())
    rest = folded.removeprefix(DOMAIN)
    return rest != folded and not rest[:1].isalnum() and rest[:1] != "-"


def go_equal(one: str, other: str) -> bool:
    """Return whether Go's encoding/json takes two names of members for the same."""
    return len(one) == len(other) and all(
        a == b or a.casefold() == b.casefold() for a, b in zip(one, other, strict=True)
    )


def _is_plain(name: str) -> bool:
    """Return whether a name cannot be one of credspec's in any spelling; most are seen at once."""
    if not name.isascii() or "%" in name or "\\" in name:
        return False
    letters = "".join(filter(str.isalnum, name)).lower()
    return not letters.startswith(("credspec", "credentialspec"))


def _folded(name: str) -> str:
    import unicodedata

    for _ in range(4):  # an escape of an escape ends somewhere
        decoded = _decoded(name)
        if decoded == name:
            break
        name = decoded
    folded = unicodedata.normalize("NFKC", name).casefold()
    folded = unicodedata.normalize("NFKD", folded)
    ignored = {"Cf", "Cc", "Mn"}  # zero-width and control characters, combining marks
    return "".join(c for c in folded if c.isspace() or unicodedata.category(c) not in ignored)


def _decoded(name: str) -> str:
    import re

    def character(match: re.Match[str]) -> str:
        return chr(int(match[1], 16))

    def octets(match: re.Match[str]) -> str:
        return bytes.fromhex(match[0].replace("%", "")).decode("utf-8", "replace")

    name = re.sub(r"\\[uU]([0-9a-fA-F]{4})", character, name)
    name = re.sub(r"\\[bfnrt]", " ", name)
    return re.sub(r"(?:%[0-9a-fA-F]{2})+", octets, name)
