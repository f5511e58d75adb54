"""The tables ``[domains."DNS-NAME"]`` of the configuration: which domain controllers to prefer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from credspec.directory.locator import ControllerPreference, valid_domain
from credspec.errors import Problem, UsageError

_KEYS: Final = frozenset({"controllers", "site"})
_SITE: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.IGNORECASE)


def domain_preferences(
    table: object, source: str
) -> tuple[dict[str, ControllerPreference], list[Problem]]:
    """Return what a ``domains`` table says by domain, in lower case, and all that is wrong in it.

    The codes are `config-wrong-value` and `config-unknown-key`.
    """
    if not isinstance(table, dict):
        return {}, [_wrong(source, "domains", table, "a table")]
    found: dict[str, ControllerPreference] = {}
    problems: list[Problem] = []
    for name, content in table.items():
        where = f'domains."{name}"'
        domain = _dns_name(name)
        if domain is None:
            problems.append(_wrong(source, "domains", name, "a DNS name such as contoso.com"))
        elif domain in found:
            problems.append(_wrong(source, "domains", name, "each domain once, in any case"))
        elif not isinstance(content, dict):
            problems.append(_wrong(source, where, content, "a table"))
        else:
            problems += _problems(content, where, source)
            found[domain] = _preference(content)
    return found, problems


def _problems(content: Mapping[str, object], where: str, source: str) -> Iterator[Problem]:
    for key in content.keys() - _KEYS:
        yield Problem(
            code="config-unknown-key",
            found="unknown key",
            where=f"{source}: {where}.{key}",
            expected="one of " + ", ".join(sorted(_KEYS)),
        )
    site = content.get("site")
    if site is not None and not (isinstance(site, str) and _SITE.fullmatch(site)):
        expected = "the name of an Active Directory site, such as Berlin"
        yield _wrong(source, f"{where}.site", site, expected)
    controllers = content.get("controllers")
    if controllers is None:
        return
    expected = "DNS names of domain controllers, such as dc1.contoso.com"
    if not isinstance(controllers, list) or not controllers:
        yield _wrong(source, f"{where}.controllers", controllers, f"a list of {expected}")
        return
    for name in controllers:
        if _dns_name(name) is None:
            yield _wrong(source, f"{where}.controllers", name, expected)


def _preference(content: Mapping[str, object]) -> ControllerPreference:
    """Return what the valid part of a table says."""
    site, controllers = content.get("site"), content.get("controllers")
    names = map(_dns_name, controllers if isinstance(controllers, list) else ())
    return ControllerPreference(
        controllers=tuple(dict.fromkeys(name for name in names if name is not None)),
        site=site if isinstance(site, str) else None,
    )


def _dns_name(name: object) -> str | None:
    """Return a DNS name of several labels in lower case, None if it is not one."""
    if not isinstance(name, str) or "." not in name.strip("."):
        return None
    try:
        return valid_domain(name)
    except UsageError:
        return None


def _wrong(source: str, name: str, value: object, expected: str) -> Problem:
    return Problem(
        code="config-wrong-value",
        found=repr(value)[:80],
        where=f"{source}: {name}",
        expected=expected,
    )
