"""Group Managed Service Accounts of a lab, made as in any domain and enabled at once."""

from __future__ import annotations

from collections.abc import Sequence

from credspec.directory.account_identity import valid_account_name
from credspec.errors import UsageError
from credspec.lab.domain import Lab
from credspec.lab.samba_commands import run_commands

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
    """Make a gMSA whose password `readers` may read.

    Raises:
        UsageError: `lab-account-invalid`.
        CredspecError: `lab-samba-tool`, also if there is one of that name.
    """
    commands = account_commands(
        lab.dns_domain,
        name,
        readers=readers,
        interval_days=interval_days,
        enabled=enabled,
        service_principal_names=service_principal_names,
    )
    run_commands(lab, commands)


def account_commands(
    dns_domain: str,
    name: str,
    *,
    readers: Sequence[str],
    interval_days: int = 30,
    enabled: bool = True,
    service_principal_names: Sequence[str] = (),
) -> list[tuple[str, ...]]:
    """Return the commands of samba-tool that make such a gMSA; it makes them disabled.

    Raises:
        UsageError: `lab-account-invalid`.
    """
    name = valid_account_name(name.removesuffix("$"))
    if len(name) > _MOST_CHARACTERS or name.startswith("-"):
        raise UsageError.of(
            "lab-account-invalid",
            f"{name[:60]!r} is no name of a gMSA",
            expected=f"at most {_MOST_CHARACTERS} characters, such as WebApp09",
        )
    kind = "service-account"
    created: tuple[str, ...] = (kind, "create", f"--name={name}")
    created += (f"--dns-host-name={name.lower()}.{dns_domain}",)
    commands = [(*created, f"--managed-password-interval={interval_days}")]
    if enabled:
        commands.append(("user", "enable", f"{name}$"))
    for reader in readers:
        added = (kind, "group-msa-membership", "add", f"--name={name}", f"--principal={reader}")
        commands.append(added)
    commands += [("spn", "add", service, f"{name}$") for service in service_principal_names]
    return commands
