"""What services keep and programs say: accounts as JSON, never quoted in errors."""

from __future__ import annotations

import json
from typing import Final, NoReturn

from credspec.errors import PermanentFaultError, UsageError
from credspec.providers.provider import HostAccount, checked_account

MAX_ANSWER_BYTES: Final = 64 * 1024
"""More than that is no account."""

# Rancher's and AWS' names, and those that AWS used before.
_NAMES: Final = {
    "domain": ("domainName", "domain"),
    "user": ("username", "usernameOfStandardUserAccount"),
    "password": ("password", "passwordOfStandardUserAccount"),
}


def account_from_json(data: bytes | str, where: str) -> HostAccount:
    """Return the account of a JSON object with ``username``, ``password`` and ``domainName``.

    Raises:
        CredspecError: `host-account-answer`, `host-account-invalid`.
    """
    if len(data) > MAX_ANSWER_BYTES:
        refuse_answer(where, f"more than {MAX_ANSWER_BYTES} bytes")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        refuse_answer(where, "not a JSON object")
    values = {}
    for name, keys in _NAMES.items():
        found = [document[key] for key in keys if key in document]
        if not found and name == "domain":
            found = [""]
        if not found or not isinstance(found[0], str):
            refuse_answer(where, f"no text {keys[0]} in it")
        values[name] = found[0]
    return checked_account(values["domain"], values["user"], values["password"], where)


def account_from_line(text: str, where: str) -> HostAccount:
    r"""Return the account of ``DOMAIN\user:password``, the form that Azure Key Vault holds.

    Raises:
        CredspecError: `host-account-answer`, `host-account-invalid`.
    """
    if len(text) > MAX_ANSWER_BYTES:
        refuse_answer(where, f"more than {MAX_ANSWER_BYTES} characters")
    name, colon, password = text.partition(":")
    domain, backslash, user = name.partition("\\")
    if not colon or not backslash:
        refuse_answer(where, "not of the form DOMAIN\\user:password")
    return checked_account(domain, user, password, where)


def refuse_answer(where: str, found: str) -> NoReturn:
    """Refuse what a provider's service said; `found` must not hold any of it.

    Raises:
        CredspecError: `host-account-answer`.
    """
    raise PermanentFaultError.of(
        "host-account-answer",
        found,
        where=where,
        expected="an account's username, password and domainName",
    )


def refuse_input(where: str, expected: str) -> NoReturn:
    """Refuse a plug-in input, which may be a secret and is not quoted.

    Raises:
        UsageError: `host-account-input`.
    """
    raise UsageError.of(
        "host-account-input", "the input is of another form", where=where, expected=expected
    )
