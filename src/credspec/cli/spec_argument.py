"""A credential spec as commands take it: a path, ``-``, a reference, or a name in the directory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from credspec.errors import InvalidSpecError, NotFoundError
from credspec.spec.encoding import MAX_SPEC_BYTES
from credspec.spec.reference import parse_reference
from credspec.spec.spec_directory import SpecDirectory


def spec_source(text: str, spec_directory: Path) -> Callable[[], bytes]:
    """Return what reads the spec that `text` names; it reads when it is called.

    `text` is ``-`` for standard input, a reference with ``file://`` or ``raw://``, the path of a
    file, or the name of a file in the spec directory, with or without ``.json``. At most
    `MAX_SPEC_BYTES` + 1 bytes are read.

    Raises:
        InvalidSpecError: as `parse_reference`; when read, as `SpecDirectory.read`.
        NotFoundError: `spec-not-found`, when read.
    """
    if text == "-":
        return lambda: sys.stdin.buffer.read(MAX_SPEC_BYTES + 1)
    if "://" in text:
        reference = parse_reference(text)
        if reference.scheme == "raw":
            return reference.value.encode
        return lambda: SpecDirectory(spec_directory).read(reference.value)
    return lambda: _read(text, spec_directory)


def _read(text: str, spec_directory: Path) -> bytes:
    path = Path(text)
    try:
        if path.is_file():
            with path.open("rb") as file:
                return file.read(MAX_SPEC_BYTES + 1)
    except (OSError, ValueError) as error:
        raise NotFoundError.of("spec-not-found", str(error), where=text[:200]) from None
    if "/" not in text and spec_directory.is_dir():
        names = SpecDirectory(spec_directory).names()
        for name in (text, f"{text}.json"):
            if name in names:
                return SpecDirectory(spec_directory).read(name)
    similar = ""
    with suppress(InvalidSpecError):
        similar = SpecDirectory(spec_directory).similar(text)
    raise NotFoundError.of(
        "spec-not-found",
        "no such file",
        where=text[:200],
        expected=f"a path, file://NAME, raw://DOCUMENT, or the name of a file in {spec_directory}",
        remedy=f"did you mean file://{similar}?"
        if similar
        else "list them with `credspec list`, make one with `credspec new`",
    )
