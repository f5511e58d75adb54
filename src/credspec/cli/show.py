"""``credspec show``: what a credential spec says, for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import click

from credspec.cli.completion import complete_spec
from credspec.cli.help_text import examples
from credspec.printable import printable

if TYPE_CHECKING:
    from credspec.spec.document import CredentialSpec, HostAccountConfig

_REDACTED: Final = "<not shown: it may hold a secret; --show-secrets>"


@click.command(
    epilog=examples(
        "credspec show www.json",
        "credspec show www --output json",
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("spec", type=click.Path(allow_dash=True), shell_complete=complete_spec)
@click.option("--show-secrets", is_flag=True, help="Show PluginInput, which may hold a password.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def show(*, spec: str, show_secrets: bool, output: str) -> None:
    """Show the contents of a credential spec: domain, accounts, host account.

    SPEC is a path, file://NAME, raw://DOCUMENT, a name in the spec directory, or - for standard
    input. A Kubernetes GMSACredentialSpec, a Compose file or an OCI config.json that holds a spec
    is read as well.
    """
    from credspec.cli.spec_argument import spec_source
    from credspec.config.host import load_config
    from credspec.spec.conversions import read_any_form
    from credspec.spec.document import CredentialSpec

    data = spec_source(spec, load_config().spec_directory)()
    is_yaml = spec.lower().endswith((".yaml", ".yml"))
    found = CredentialSpec.from_json(read_any_form(data, is_yaml=is_yaml))
    if output == "json":
        click.echo(json.dumps(_document(found, show_secrets=show_secrets), indent=2))
        return
    domain = found.domain_join_config
    lines = [
        ("Domain", f"{domain.dns_name} ({domain.net_bios_name or 'no NetBIOS name'})"),
        ("Forest", domain.dns_tree_name or "-"),
        ("Domain SID", domain.sid or "-"),
        ("Domain GUID", domain.guid or "-"),
        ("Default account", found.default_account),
    ]
    for account in found.accounts:
        entries = found.active_directory_config.group_managed_service_accounts
        scopes = [e.scope for e in entries if e.name.rstrip("$").casefold() == account.casefold()]
        lines.append(("Account", f"{account} ({', '.join(scopes)})"))
    host = found.active_directory_config.host_account_config
    if host is not None:
        lines += _host_lines(host, show_secrets=show_secrets)
    for name, text in lines:
        click.echo(f"{name + ':':<17}{printable(text)}")


def _host_lines(host: HostAccountConfig, *, show_secrets: bool) -> list[tuple[str, str]]:
    from credspec.spec.host_account_plugins import plugin_name

    guid = host.plugin_guid or "-"
    given = host.plugin_input
    shown = given if isinstance(given, str) else json.dumps(given)
    return [
        ("Host account", f"{plugin_name(guid) or 'unknown plug-in'} {guid}"),
        ("Plug-in input", shown if show_secrets else _REDACTED),
    ]


def _document(spec: CredentialSpec, *, show_secrets: bool) -> dict[str, Any]:
    document = spec.to_json()
    host = document["ActiveDirectoryConfig"].get("HostAccountConfig")
    if host is not None and "PluginInput" in host and not show_secrets:
        host["PluginInput"] = "<redacted>"
    return document
