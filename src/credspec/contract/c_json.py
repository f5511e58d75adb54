"""JSON by the interpreter's own C code, without the package around it.

`json` imports `re` and `enum`, which takes longer than all else that the shim does. What stands
here is how that package calls the same code; on an interpreter without it, the package is used.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself costs milliseconds
    from collections.abc import Callable
    from typing import Any

_WHITESPACE = " \t\n\r"


class _Reading:
    """What the scanner looks up: the defaults of `json.JSONDecoder`."""

    strict = True
    object_hook = None
    object_pairs_hook: Callable[[list[tuple[str, Any]]], object] | None = None
    parse_float = float
    parse_int = int
    parse_constant = float  # of NaN, Infinity and -Infinity
    memo: dict[str, str] = {}  # noqa: RUF012 - the C code has its own


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)[:40]!r} is there twice")
    return members


class _StrictReading(_Reading):
    """The same, but members of an object have different names."""

    object_pairs_hook = staticmethod(_unrepeated)


def _refuse(value: object) -> object:
    raise TypeError(f"{type(value).__name__} is not JSON")


try:
    import _json

    _scan: Callable[[str, int], tuple[Any, int]] = _json.make_scanner(_Reading)  # type: ignore[arg-type]
    _scan_strictly: Callable[[str, int], tuple[Any, int]] = _json.make_scanner(_StrictReading)  # type: ignore[arg-type]
    _encode: Callable[[object, int], tuple[str, ...]] = _json.make_encoder(
        None, _refuse, _json.encode_basestring_ascii, None, ": ", ", ", False, False, True
    )
except (ImportError, AttributeError, TypeError):
    import json

    def loads(data: bytes) -> Any:
        """Read a document; raises ValueError."""
        return json.loads(data)

    def loads_strictly(data: bytes) -> Any:
        """Read a document in which no object has a member twice; raises ValueError."""
        return json.loads(data, object_pairs_hook=_unrepeated)

    def dumps(value: object) -> bytes:
        """Write a document."""
        return json.dumps(value).encode()
else:

    def loads(data: bytes) -> Any:
        """Read a document; raises ValueError."""
        return _read(_scan, data)

    def loads_strictly(data: bytes) -> Any:
        """Read a document in which no object has a member twice; raises ValueError."""
        return _read(_scan_strictly, data)

    def _read(scan: Callable[[str, int], tuple[Any, int]], data: bytes) -> Any:
        text = data.decode("utf-8", "surrogatepass")
        start = len(text) - len(text.lstrip(_WHITESPACE))
        try:
            value, end = scan(text, start)
        except StopIteration:
            raise ValueError("no JSON") from None
        except SystemError:
            # The C code says where a text is broken by a class that nobody has imported yet.
            import json.decoder  # noqa: F401 - for what it leaves behind

            value, end = scan(text, start)
        if text[end:].strip(_WHITESPACE):
            raise ValueError("more than one JSON document")
        return value

    def dumps(value: object) -> bytes:
        """Write a document."""
        return "".join(_encode(value, 0)).encode()
