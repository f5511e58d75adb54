"""References to credential specs: the values of ``--security-opt credentialspec=``.

Syntax, messages and the rule for several options are those of the Docker daemon on Windows
(moby, ``daemon/oci_windows.go``), so that the same command line has the same outcome here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast, get_args

from credspec.errors import InvalidSpecError

if TYPE_CHECKING:
    from collections.abc import Sequence

Scheme: TypeAlias = Literal["file", "raw", "registry", "config"]

_OPTION: Final = "credentialspec"
_MALFORMED: Final = (
    "invalid credential spec security option - value must be prefixed by 'file://', "
    "'registry://', or 'raw://' followed by a non-empty value"
)


@dataclass(frozen=True, slots=True)
class SpecReference:
    """Where a credential spec is: `scheme` says how to read `value`, which is kept verbatim.

    The value of ``raw`` is the document itself and may hold a secret, so ``repr`` leaves it out.
    """

    scheme: Scheme
    value: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.value}"

    def __repr__(self) -> str:
        value = "<document>" if self.scheme == "raw" else self.value
        return f"SpecReference(scheme={self.scheme!r}, value={value!r})"


def parse_reference(text: str, *, swarm: bool = False, windows: bool = False) -> SpecReference:
    """Read a reference such as ``file://www.json``; the scheme may be in any letter case.

    `swarm` allows ``config://``, which exists only for swarm services; `windows` allows
    ``registry://``.

    Raises:
        InvalidSpecError: ``spec-reference-invalid`` with the daemon's text for every malformed
            reference, ``spec-reference-registry`` for ``registry://`` outside Windows.
    """
    prefix, _, value = text.partition("://")
    scheme = prefix.lower()
    allowed = scheme in get_args(Scheme) and (scheme != "config" or swarm)
    if not value or not allowed:
        raise malformed_reference()
    if scheme == "registry" and not windows:
        raise registry_reference()
    return SpecReference(cast("Scheme", scheme), value)


def parse_security_options(
    options: Sequence[str], *, swarm: bool = False
) -> tuple[SpecReference | None, list[str]]:
    """Split Docker security options into the credential spec and the options of the daemon.

    All ``credentialspec=`` options are checked and the last one counts, as on Windows; None
    without any. The others come back unchanged and in order.

    Raises:
        InvalidSpecError: as `parse_reference`, for the first malformed one.
    """
    reference: SpecReference | None = None
    others: list[str] = []
    for option in options:
        key, equals, value = option.partition("=")
        if equals and key.lower() == _OPTION:
            reference = parse_reference(value, swarm=swarm)
        else:
            others.append(option)
    return reference, others


def malformed_reference() -> InvalidSpecError:
    """Return the daemon's error for a reference that it does not understand."""
    return InvalidSpecError.of("spec-reference-invalid", _MALFORMED)


def registry_reference() -> InvalidSpecError:
    """Return the error for ``registry://`` on a host that has no registry."""
    return InvalidSpecError.of(
        "spec-reference-registry",
        "invalid credential spec: registry:// exists only on Windows",
        expected="a reference with file:// or raw://",
    )
