"""The leases that there are now, and what each of them logs on with."""

from __future__ import annotations

from credspec.agent.identities.identity import IdentityName
from credspec.agent.leases.content import identity_names
from credspec.agent.leases.record import LeaseRecord, valid_id
from credspec.errors import NotFoundError
from credspec.providers.kept_secrets import KeptSecrets
from credspec.providers.provider import HostSource


class LeaseTable:
    """Records by lease id; `sources` has what a lease logs on with, None for the machine identity.

    The `secrets` of sources are held under the lease's id.
    """

    def __init__(self) -> None:
        self.records: dict[str, LeaseRecord] = {}
        self.sources: dict[str, HostSource | None] = {}
        self.secrets = KeptSecrets()

    def all(self) -> list[LeaseRecord]:
        """Return all leases, oldest first."""
        return sorted(self.records.values(), key=lambda r: (r.created, r.lease_id))

    def get(self, lease_id: str) -> LeaseRecord:
        """Return one lease.

        Raises:
            UsageError: `lease-id-invalid`.
            NotFoundError: `lease-not-found`.
        """
        record = self.records.get(valid_id(lease_id))
        if record is None:
            raise NotFoundError.of("lease-not-found", "there is no such lease", where=lease_id)
        return record

    def drop_unused_secrets(self, lease_id: str) -> None:
        """Let go of the secrets that were kept for a lease that does not log on with them."""
        source = self.sources.get(lease_id) if lease_id in self.records else None
        self.secrets.drop(lease_id, but=None if source is None else source.secret)

    def is_current(self, record: LeaseRecord) -> bool:
        """Return whether this is still what is known of the lease."""
        return self.records.get(record.lease_id) is record

    def names(
        self, record: LeaseRecord, source: HostSource | None = None
    ) -> tuple[IdentityName, ...]:
        """Return the identities of a lease, with another `source` if one is given."""
        return identity_names(record, source or self.sources.get(record.lease_id))
