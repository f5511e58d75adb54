"""Group Managed Service Accounts of a lab, made as in any domain and enabled at once."""

from __future__ import annotations

from collections.abc import Sequence

from credspec.directory.account_identity import valid_account_name
from credspec.errors import UsageError
from credspec.lab.domain import Lab

_MOST_CHARACTERS = 15  # of a gMSA's sAMAccountName without its $


def make_account(
    lab: Lab,
    name: str,
    *,
    readers: Sequence[str],
    interval_days: int = 30,
    enabled: bool = True,
    service_principal_names: Sequence[str] = (),
) -> None:
    """Make a gMSA whose password `readers` may read; samba-tool makes it disabled.

    Raises:
        UsageError: `lab-account-invalid`.
        CredspecError: `lab-samba-tool`, also if there is one of that name.
    """
    name = valid_account_name(name.removesuffix("$"))
    if len(name) > _MOST_CHARACTERS or name.startswith("-"):
        raise UsageError.of(
            "lab-account-invalid",
            f"{name[:60]!r} is no name of a gMSA",
            expected=f"at most {_MOST_CHARACTERS} characters, such as WebApp09",
        )
    tool = lab.samba_tool
    tool(
        *("service-account", "create", f"--name={name}"),
        f"--dns-host-name={name.lower()}.{lab.dns_domain}",
        f"--managed-password-interval={interval_days}",
    )
    if enabled:
        tool("user", "enable", f"{name}$")
    for reader in readers:
        tool(
            *("service-account", "group-msa-membership", "add"),
            *(f"--name={name}", f"--principal={reader}"),
        )
    for service in service_principal_names:
        tool("spn", "add", service, f"{name}$")
