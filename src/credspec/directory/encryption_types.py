"""Which Kerberos encryption types an account supports (MS-KILE 2.2.7)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from credspec.directory.account_groups import find_entry
from credspec.directory.connection import Connection
from credspec.directory.domain import DomainFacts
from credspec.errors import Problem

_ATTRIBUTE: Final = "msDS-SupportedEncryptionTypes"
_BITS: Final = {0x4: 23, 0x8: 17, 0x10: 18}
_RC4: Final = 23
_NAMES: Final = {23: "RC4", 17: "AES128", 18: "AES256"}
_MASK: Final = 0xFFFFFFFF


def read_encryption_types(
    connection: Connection, facts: DomainFacts, name: str
) -> frozenset[int] | None:
    """Return the encryption types that an account's tickets may have, by their numbers.

    Only AES256, AES128 and RC4 are returned; others are unusable. None if the account does not say,
    so that the domain's default counts, or if there is no such account.
    """
    entry = find_entry(connection, facts, name, (_ATTRIBUTE,))
    values = entry.get(_ATTRIBUTE.lower()) if entry is not None else None
    try:
        bits = int(values[0]) & _MASK if values else 0
    except ValueError:
        return None
    return frozenset(number for bit, number in _BITS.items() if bits & bit) if bits else None


def encryption_type_problems(
    name: str, supported: frozenset[int] | None, keys: Iterable[int]
) -> tuple[Problem, ...]:
    """Return what is wrong with the types of an account of which a keytab has keys of some types.

    The codes are `account-rc4-only`, `account-enctypes-unusable` and `keytab-enctype-missing`.
    """
    if supported is None:
        return ()
    held = frozenset(keys)
    where = f"account {name}"
    if not supported:
        return (
            Problem(
                code="account-enctypes-unusable",
                where=where,
                found=f"{_ATTRIBUTE} has neither AES nor RC4",
                expected="24 (AES128 and AES256)",
                remedy=f"set it ({_set_types(name)}): the domain makes no ticket for logons "
                "to this account",
            ),
        )
    problems: list[Problem] = []
    if supported == {_RC4}:
        problems.append(
            Problem(
                code="account-rc4-only",
                where=where,
                found=f"{_ATTRIBUTE} has only RC4",
                expected="24 (AES128 and AES256)",
                remedy=f"set it ({_set_types(name)}): domain controllers and clients stop taking "
                "RC4 (Windows: updates of 2026, CVE-2026-20833), and FIPS forbids it",
            )
        )
    if held and not held & supported:
        missing, there = ", ".join(_shown(supported)), ", ".join(_shown(held)) or "others"
        problems.append(
            Problem(
                code="keytab-enctype-missing",
                where=where,
                found=f"its tickets are {missing}, the keytab has keys of {there}",
                expected="a key of a type that tickets have",
                remedy="renew the keytab (adcli update, net ads keytab create), or change the "
                f"account's types ({_set_types(name)})",
            )
        )
    return tuple(problems)


def _shown(types: Iterable[int]) -> list[str]:
    return [_NAMES[number] for number in sorted(types, reverse=True) if number in _NAMES]


def _set_types(name: str) -> str:
    return f"Set-ADServiceAccount or Set-ADComputer {name} -KerberosEncryptionType AES128,AES256"
