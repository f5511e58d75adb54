"""What libldap's errors become; those of a controller that cannot serve mean another connection."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from credspec.directory.connection import _guarded
from credspec.directory.ldap_session import LdapError
from credspec.errors import CredspecError, NotPermittedError, UnreachableError


def failing(code: int, text: str = "") -> Callable[[], None]:
    def fail() -> None:
        raise LdapError(code, text)

    return fail


@pytest.mark.parametrize("code", [51, 52])
def test_a_controller_that_cannot_serve_is_as_one_that_does_not_answer(code: int) -> None:
    """52 is also its notice that a logon has expired (MS-ADTS 5.1.1.6)."""
    with pytest.raises(UnreachableError, match="ldap-unavailable"):
        _guarded("LDAP", failing(code, "Server is unavailable"))


@pytest.mark.parametrize(
    ("code", "text", "kind", "expected"),
    [
        (1, "Operations error", CredspecError, "ldap"),
        (-2, "Local error", CredspecError, "ldap"),
        (8, "Strong auth required: 0000202D", NotPermittedError, "ldap-not-encrypted"),
        (-6, "No worthy mechs found", NotPermittedError, "ldap-no-mechanism"),
    ],
)
def test_other_errors(code: int, text: str, kind: type[CredspecError], expected: str) -> None:
    with pytest.raises(CredspecError) as caught:
        _guarded("LDAP", failing(code, text))
    assert type(caught.value) is kind
    assert caught.value.code == expected
