"""Libraries of cloud services: extras, imported only when their provider is used."""

from __future__ import annotations

import importlib
from types import ModuleType

from credspec.errors import UsageError
from credspec.installation import how_to_install


def import_extra(module: str, extra: str) -> ModuleType:
    """Import a module of an extra.

    Raises:
        UsageError: `host-account-extra`, which names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UsageError.of(
            "host-account-extra",
            f"the package {module.partition('.')[0]} is not installed",
            where=f"provider {extra}",
            remedy=how_to_install(extra),
        ) from None
