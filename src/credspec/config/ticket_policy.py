"""Which tickets containers may hold, for which services, and for how long: part of the policy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final

from credspec.config.account_patterns import ACCOUNT_PATTERN, covers, with_domain
from credspec.config_table import Kind, NotTakenError, shown_value, texts
from credspec.contract.service_names import TGT, TICKETS
from credspec.errors import NotPermittedError, Problem
from credspec.kerberos.service_names import ServiceName, ServicePattern

Services = Mapping[str, tuple[ServicePattern, ...]]
"""By pattern of accounts the services that these may have tickets of."""

Lives = Mapping[str, timedelta]
"""By class of services, in lower case, for how long a ticket lives; ``*`` is for all others."""

# A session of LDAP or SMB may end with its ticket; the others only begin with one.
DEFAULT_LIVES: Final[Lives] = MappingProxyType(
    {"*": timedelta(minutes=10), "cifs": timedelta(hours=1), "ldap": timedelta(hours=1)}
)
"""The lives of tickets of services unless the configuration says otherwise."""

NO_SERVICES: Final[Services] = MappingProxyType({})

_CLASS: Final = re.compile(r"\*|[A-Za-z][A-Za-z0-9_.-]{0,63}")
_LIFE: Final = re.compile(r"(?=\d)(?:(\d{1,3})h)?(?:(\d{1,4})m)?(?:(\d{1,5})s)?", re.ASCII)
_LONGEST_LIFE: Final = timedelta(hours=24)
_PATTERN_WORDS: Final = (
    "CLASS/HOST or CLASS/HOST:PORT, with @REALM if wanted, and * for whole labels of HOST or for "
    "PORT"
)
_SPN_FORM: Final = re.compile(r"[\w.*@$:/+-]{1,255}")


def _table_of(
    key: Callable[[str], bool], key_words: str, value: Callable[[Any], Any], takes: str
) -> Kind:
    """Return the kind of a table of which each key and each value is read by itself."""

    def read(table: Any) -> Mapping[str, Any]:
        if not isinstance(table, dict):
            raise NotTakenError((table, "a table"))
        wrong = [(name, key_words) for name in table if not key(name)]
        found = {}
        for name, content in table.items():
            try:
                found[name] = value(content)
            except NotTakenError as error:
                wrong += [(f"{name}: {shown_value(each)}", words) for each, words in error.wrong]
        if wrong:
            raise NotTakenError(*wrong)
        return MappingProxyType(found)

    return Kind(takes, read, form=_SPN_FORM)


def _life(value: Any) -> timedelta:
    found = _LIFE.fullmatch(value) if isinstance(value, str) else None
    hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0)
    life = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    if not timedelta() < life <= _LONGEST_LIFE:
        raise NotTakenError((value, 'a time such as "10m" or "1h30m", at most 24h'))
    return life


_PATTERNS: Final = texts(ServicePattern.parse, _PATTERN_WORDS)

MODES: Final = texts(
    lambda text: text if text in TICKETS else None, " or ".join(f'"{kind}"' for kind in TICKETS)
)
SERVICES: Final = _table_of(
    lambda name: ACCOUNT_PATTERN.fullmatch(name) is not None,
    "a pattern of ACCOUNT@DOMAIN",
    _PATTERNS.read,
    f"a table; each key is a pattern of ACCOUNT@DOMAIN, each value a list of {_PATTERN_WORDS}",
)
LIVES: Final = _table_of(
    lambda name: _CLASS.fullmatch(name) is not None,
    "a class of services such as cifs, or *",
    _life,
    'a table; each key is a class of services or *, each value a time such as "10m" or "1h"',
)


def life_of(lives: Lives, service_class: str) -> timedelta:
    """Return for how long a ticket of a class of services is to live."""
    given = {name.lower(): life for name, life in lives.items()}
    wanted = service_class.lower()
    for table, name in ((given, wanted), (DEFAULT_LIVES, wanted), (given, "*")):
        if name in table:
            return table[name]
    return DEFAULT_LIVES["*"]


def services_of(services: Services, account: str) -> tuple[ServicePattern, ...] | None:
    """Return what ``NAME@domain`` may have tickets of, None if nothing limits it."""
    found = [listed for pattern, listed in services.items() if covers([pattern], account)]
    return tuple(pattern for listed in found for pattern in listed) if found else None


def tickets_problems(
    allowed: Sequence[str], services: Services, kind: str, accounts: Sequence[str], domain: str
) -> list[Problem]:
    """Return why accounts' containers may not hold such tickets: `policy-tickets`, `policy-tgt`."""
    if kind not in allowed:
        return [
            Problem(
                code="policy-tickets",
                found=f"tickets={kind} is not for the containers of this host",
                where="policy",
                expected=" or ".join(f"tickets={each}" for each in allowed) or "no tickets at all",
                remedy="set the label or annotation credspec.dev/tickets, with "
                f'credspec.dev/services, or add "{kind}" to tickets under [policy]',
            )
        ]
    if kind != TGT:
        return []
    return [
        Problem(
            code="policy-tgt",
            found=f"{name} never gets a ticket-granting ticket on this host",
            where="policy",
            expected="tickets=services or tickets=broker, with the services that are needed",
            remedy="set the labels or annotations credspec.dev/tickets and credspec.dev/services, "
            "or take the account out of [policy.services]",
        )
        for name in with_domain(accounts, domain)
        if services_of(services, name) is not None
    ]


def services_problems(
    services: Services, names: Iterable[ServiceName], accounts: Sequence[str], domain: str
) -> list[Problem]:
    """Return why accounts may not have tickets of these services: `policy-service` of each."""
    wanted = list(names)
    problems = []
    for account in with_domain(accounts, domain):
        patterns = services_of(services, account)
        if patterns is None:
            continue
        realm = account.partition("@")[2]
        problems += [
            Problem(
                code="policy-service",
                found=f"{account} may not have tickets of {name} on this host",
                where="policy",
                expected=" or ".join(map(str, patterns[:5])) or "no service at all",
                remedy="add the service to the account's list under [policy.services]",
            )
            for name in wanted
            if not any(pattern.covers(name, realm) for pattern in patterns)
        ]
    return problems


def refuse(problems: Sequence[Problem]) -> None:
    """Refuse if there is a problem.

    Raises:
        NotPermittedError: with all of them.
    """
    if problems:
        raise NotPermittedError(*problems)
