"""What libkrb5 finds in a keytab file: versions and types of a principal's keys."""

from __future__ import annotations

from pathlib import Path

from credspec.kerberos.kdc_errors import kerberos_error


def keytab_versions(keytab: Path, principal: str) -> frozenset[int]:
    """Return the key version numbers that a keytab holds of a principal.

    Raises:
        CredspecError: see `kerberos_error`.
    """
    return frozenset(version for version, _ in _keys_of(keytab, principal))


def keytab_enctypes(keytab: Path, principal: str) -> frozenset[int]:
    """Return the types of a principal's keys in a keytab; raises as `keytab_versions`."""
    return frozenset(enctype for _, enctype in _keys_of(keytab, principal))


def _keys_of(keytab: Path, principal: str) -> list[tuple[int, int]]:
    """Return key version number and encryption type of each key of a principal."""
    import krb5

    context = krb5.init_context()
    try:
        table = krb5.kt_resolve(context, f"FILE:{keytab}".encode())
        return [
            (entry.kvno, entry.key.enctype)
            for entry in table
            if entry.principal.name == principal.encode()
        ]
    except krb5.Krb5Error as error:
        raise kerberos_error(error, principal) from None
