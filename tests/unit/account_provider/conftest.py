"""The certificate authorities of providers' tests, since the account provider is their server."""

from __future__ import annotations

from unit.providers.conftest import authority, other_authority

__all__ = ["authority", "other_authority"]
