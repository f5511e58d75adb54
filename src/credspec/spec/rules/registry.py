"""All lint rules, in the order in which their findings are reported."""

from __future__ import annotations

from typing import Any, Final

from credspec.spec.rules.accounts import DEFAULT_ACCOUNT, ENTRIES, TWINS
from credspec.spec.rules.carriers import COMPOSE_CREDENTIAL_SPEC, NO_SPEC
from credspec.spec.rules.domain import DOMAIN_FIELDS
from credspec.spec.rules.keys import KEYS
from credspec.spec.rules.names import NAMES, OBJECT
from credspec.spec.rules.plugins import PLUGIN
from credspec.spec.rules.rule import Rule
from credspec.spec.rules.tickets import SERVICES_OF_MACHINES

OF_SPECS: Final = (KEYS, NAMES, DOMAIN_FIELDS, DEFAULT_ACCOUNT, ENTRIES, TWINS, PLUGIN)
"""The rules about a credential spec."""

OF_OBJECTS: Final = (OBJECT,)
"""The rules about the Kubernetes object around a spec."""

# Names come after the default account, which gets the name of an entry; keys are fixed before all.
FIX_ORDER: Final = (DOMAIN_FIELDS, DEFAULT_ACCOUNT, NAMES, PLUGIN, ENTRIES, TWINS)
"""The rules about what known keys hold, in the order in which they are fixed."""

_ALL: Final[tuple[Rule[Any], ...]] = (
    *(rule for each in (*OF_SPECS, *OF_OBJECTS) for rule in each.rules),
    COMPOSE_CREDENTIAL_SPEC,
    NO_SPEC,
    SERVICES_OF_MACHINES,
)
RULES: Final = {rule.code: rule for rule in _ALL}
"""Every rule by its stable code."""
