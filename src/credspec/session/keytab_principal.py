"""Which of a keytab's principals is this host, where the configuration does not say.

Keytabs gather entries: of the name before a rename, of a domain that was left, of gMSAs whose keys
were added by other tools. Neither the first nor the last entry is a rule (MS-ADTS has none).
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from credspec.errors import CredspecError, NotPermittedError, Problem
from credspec.kerberos.kdc_errors import kerberos_error


class KeytabPrincipal(NamedTuple):
    """A principal of a keytab, ``NAME@REALM`` or ``SERVICE/HOST@REALM``, and its newest entry.

    `timestamp` is when that was written, in seconds since 1970, 0 if it is not recorded.
    """

    name: str
    key_version: int = 0
    timestamp: int = 0

    @property
    def account(self) -> str:
        """The name without its realm."""
        return self.name.rpartition("@")[0]

    @property
    def realm(self) -> str:
        """The realm in lower case."""
        return self.name.rpartition("@")[2].lower()

    @property
    def is_computer_like(self) -> bool:
        """Whether it may be a computer account, or a gMSA, which looks the same."""
        return self.account.endswith("$") and "/" not in self.account


class HostNames(NamedTuple):
    """What this host is called: its short name, and the domains that may be its own."""

    short: str
    domains: frozenset[str] = frozenset()

    @classmethod
    def of_system(cls, preferred_domain: str | None = None) -> HostNames:
        """Return what the kernel and krb5.conf say; nothing is looked up.

        With a preferred domain, only that one counts.
        """
        import krb5

        short, _, domain = platform.node().lower().partition(".")
        if preferred_domain is not None:
            return cls(short, frozenset({preferred_domain.lower()}))
        try:
            realm = krb5.get_default_realm(krb5.init_context()).decode("utf-8", "replace")
        except krb5.Krb5Error:
            realm = ""
        return cls(short, frozenset({domain, realm.lower()} - {""}))


def read_keytab(keytab: Path) -> list[KeytabPrincipal]:
    """Return the principals of a keytab, each once, in the order of their first entries.

    Raises:
        NotPermittedError: `host-keytab-unreadable`.
    """
    import krb5

    context = krb5.init_context()
    found: dict[str, KeytabPrincipal] = {}
    try:
        for entry in krb5.kt_resolve(context, f"FILE:{keytab}".encode()):
            if entry.principal.name is None:
                continue
            name = entry.principal.name.decode("utf-8", "replace")
            before = found.get(name, KeytabPrincipal(name))
            version, timestamp = max(
                (before.key_version, before.timestamp), (entry.kvno, entry.timestamp)
            )
            found[name] = KeytabPrincipal(name, version, timestamp)
    except krb5.Krb5Error as error:
        raise _as_unreadable(kerberos_error(error, "keytab"), keytab) from None
    return list(found.values())


def computer_principals(
    principals: Iterable[KeytabPrincipal], host: HostNames
) -> list[KeytabPrincipal]:
    """Return the principals that may be this host's computer account, the likeliest first.

    In this order counts: the realm is the host's domain; the name is the host's (MS-ADTS 6.1.4.2:
    at most 15 characters of it); the keytab has ``host/`` entries of that name, as joining writes
    them; the newest entry; the highest key version number.
    """
    entries = list(principals)
    served = {
        (entry.account.split("/")[1].partition(".")[0].lower(), entry.realm)
        for entry in entries
        if entry.account.lower().startswith(("host/", "restrictedkrbhost/"))
    }

    def rank(entry: KeytabPrincipal) -> tuple[bool, bool, bool, int, int]:
        name = entry.account.removesuffix("$").lower()
        return (
            entry.realm in host.domains,
            name == host.short[:15],
            any(realm == entry.realm and short[:15] == name for short, realm in served),
            entry.timestamp,
            entry.key_version,
        )

    return sorted((e for e in entries if e.is_computer_like), key=rank, reverse=True)


def guess_text(taken: str, candidates: Sequence[KeytabPrincipal], keytab: Path) -> str:
    """Say that a principal was chosen among several, empty if there was no choice."""
    others = [entry.name for entry in candidates if entry.name != taken]
    if not others:
        return ""
    return (
        f"{taken} was chosen, since {keytab} also has {', '.join(others)}: name the right one by "
        "principal under [host_identity] in the configuration"
    )


def with_guess(error: CredspecError, guess: str) -> CredspecError:
    """Return an error that also says which principal was guessed; the same one without a guess."""
    if not guess or any(guess in problem.remedy for problem in error.problems):
        return error
    first, *others = error.problems
    remedy = f"{first.remedy}; {guess}" if first.remedy else guess
    return error.with_problems((first._replace(remedy=remedy), *others))


def _as_unreadable(error: CredspecError, keytab: Path) -> NotPermittedError:
    return NotPermittedError(
        *(
            Problem(code="host-keytab-unreadable", found=p.found, where=f"host keytab {keytab}")
            for p in error.problems
        )
    )
