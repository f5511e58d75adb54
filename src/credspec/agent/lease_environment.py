"""Where a container finds its tickets: the same in every container, whoever starts it."""

from __future__ import annotations

from typing import Final

MOUNT_POINT: Final = "/run/credspec"
"""Where the lease's directory is mounted in the container."""

LEASE_ENVIRONMENT: Final = {
    "KRB5CCNAME": f"FILE:{MOUNT_POINT}/krb5cc",
    # The image's own file counts too, after ours.
    "KRB5_CONFIG": f"{MOUNT_POINT}/krb5.conf:/etc/krb5.conf",
}
"""The variables of every container with a lease."""

KEYTAB_ENVIRONMENT: Final = {"KRB5_KTNAME": f"FILE:{MOUNT_POINT}/krb5.keytab"}
"""The variables of a container with a keytab, besides."""
