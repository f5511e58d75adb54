"""What the configuration says of a domain's controllers: the tables below ``[domains]``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final

from credspec.config_table import Key, Kind, NotTakenError, Table
from credspec.directory.domain_names import dns_name

_SITE: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.IGNORECASE)
_EXAMPLE: Final = "DNS names of domain controllers, such as dc1.contoso.com"


def _controllers(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise NotTakenError((value, f"a list of {_EXAMPLE}"))
    names = [dns_name(each) for each in value]
    wrong = [(each, _EXAMPLE) for each, name in zip(value, names, strict=True) if name is None]
    if wrong:
        raise NotTakenError(*wrong)
    return tuple(dict.fromkeys(name for name in names if name is not None))


def _site(value: Any) -> str:
    if not isinstance(value, str) or not _SITE.fullmatch(value):
        raise NotTakenError((value, _SITE_KIND.takes))
    return value


_SITE_KIND: Final = Kind("the name of an Active Directory site, such as Berlin", _site)


@dataclass(frozen=True, slots=True)
class ControllerPreference:
    """What an administrator says of a domain's controllers, for networks that DNS does not know.

    `controllers` are DNS names, asked before all others in this order. `site` is the Active
    Directory site whose controllers are asked next, whatever site the domain finds for this host.
    """

    table: ClassVar = Table(
        'domains."contoso.com"',
        "Which domain controllers to prefer; one table for each domain that needs one, by its DNS "
        "name.",
    )

    controllers: Annotated[
        tuple[str, ...],
        Key(
            kind=Kind(f"a list of {_EXAMPLE}", _controllers),
            meaning="Domain controllers that are tried first, in this order.",
            default="DNS decides",
        ),
    ] = ()
    site: Annotated[
        str | None,
        Key(
            kind=_SITE_KIND,
            meaning="The Active Directory site whose domain controllers are preferred.",
            default="the site that the domain finds for this host",
        ),
    ] = None
