"""Where a container finds its tickets: the same in every container, by whatever it is started."""

from __future__ import annotations

from typing import Final

from credspec.contract.names import MOUNT_POINT

LEASE_ENVIRONMENT: Final = {
    # A bare path and one file: Go's and impacket's readers know neither prefixes nor lists.
    "KRB5CCNAME": f"{MOUNT_POINT}/krb5cc",
    "KRB5_CONFIG": f"{MOUNT_POINT}/krb5.conf",
}
"""The variables of every container with a lease."""

REPLAY_CACHES: Final = "rcache"
"""The directory in which those who accept logons keep their replay caches."""

KEYTAB_ENVIRONMENT: Final = {
    "KRB5_KTNAME": f"{MOUNT_POINT}/krb5.keytab",
    # For krb5 before 1.18, which knows no default_rcache_name.
    "KRB5RCACHEDIR": f"{MOUNT_POINT}/{REPLAY_CACHES}",
}
"""The further variables of a container with a keytab."""
