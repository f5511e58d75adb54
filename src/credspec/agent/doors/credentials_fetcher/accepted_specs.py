"""Credential specs as credentials-fetcher takes them, which is more than Windows takes.

Both of its versions read the domain's DNS name and the first account that has a name, and look at
nothing else. So what they do not look at may be missing here, too; each such document is logged.
What would make a document mean something else than it says stays an error: a domain's SID or GUID
that is wrong, a scope of another domain, repeated keys.
"""

from __future__ import annotations

import re
from typing import Any, Final

from credspec.spec.document import CredentialSpec
from credspec.spec.encoding import check_text, decode_spec
from credspec.spec.host_account_plugins import PLUGINS
from credspec.spec.parts import accounts_of, directory_of, domain_of, host_of, plain, text_of
from credspec.spec.strict_json import MAX_VALUES, has_more_values, parse_json
from credspec.spec.validation import unwrapped

_PLUGIN: Final = "ActiveDirectory"
_BARE_GUID: Final = re.compile(r"[0-9A-Za-z]{8}(?:-[0-9A-Za-z]{4}){3}-[0-9A-Za-z]{12}")
_OF_DOMAIN: Final = ("Sid", "MachineAccountName", "Guid", "DnsTreeName", "NetBiosName")
_OF_HOST: Final = ("PortableCcgVersion", "PluginGUID", "PluginInput")


class AcceptedSpec:
    """A spec as it was taken: what it says, what was wrong with it, and its MachineAccountName.

    `notes` say what Windows would not take. `machine_account_name` is as the document has it, with
    a ``$`` at its end if it is so there; empty if it is no name of an account that is listed.
    """

    def __init__(
        self, spec: CredentialSpec, notes: tuple[str, ...] = (), machine_account_name: str = ""
    ) -> None:
        self.spec = spec
        self.notes = notes
        self.machine_account_name = machine_account_name


def accepted_spec(document: str | bytes) -> AcceptedSpec:
    """Read a spec of a call, as text, or of S3, as bytes.

    Raises:
        InvalidSpecError: as `CredentialSpec.from_text` and `CredentialSpec.from_bytes`.
    """
    text = decode_spec(document) if isinstance(document, bytes) else document.removeprefix("\ufeff")
    check_text(text)
    parsed = parse_json(text)
    inner, _ = unwrapped(parsed)
    notes: list[str] = []
    name = ""
    if isinstance(inner, dict) and not has_more_values(parsed, MAX_VALUES):
        name = _completed(inner, notes)
    return AcceptedSpec(CredentialSpec.from_json(parsed), tuple(notes), name)


def _completed(spec: dict[str, Any], notes: list[str]) -> str:
    """Put in what is not looked at, in place; return MachineAccountName if it is of use."""
    plugins = spec.get("CmsPlugins")
    if not isinstance(plugins, list) or _PLUGIN not in plugins:
        spec["CmsPlugins"] = [_PLUGIN]
        notes.append("/CmsPlugins: ActiveDirectory is not in it")
    _drop_empty(domain_of(spec), _OF_DOMAIN, "/DomainJoinConfig", notes)
    name = _only_wanted_account(spec, notes)
    directory = directory_of(spec)
    _drop_empty(directory, ("HostAccountConfig",), "/ActiveDirectoryConfig", notes)
    host = host_of(spec)
    if host is not None:
        where = "/ActiveDirectoryConfig/HostAccountConfig"
        _drop_empty(host, _OF_HOST, where, notes)
        if "PluginInput" not in host and host.pop("PluginGUID", None) is not None:
            notes.append(f"{where}/PluginInput: missing")
        if "PluginInput" in host and "PluginGUID" not in host:
            host["PluginGUID"] = PLUGINS["aws"].guid  # it knows no other
            notes.append(f"{where}/PluginGUID: missing")
        if _BARE_GUID.fullmatch(text_of(host, "PluginGUID")):
            host["PluginGUID"] = f"{{{host['PluginGUID']}}}"
            notes.append(f"{where}/PluginGUID: no braces")
    return name


def _only_wanted_account(spec: dict[str, Any], notes: list[str]) -> str:
    """Leave of the accounts the one whose ticket is wanted; return MachineAccountName if it is it.

    That is the account of MachineAccountName if it is in the list, which is where the ECS agent
    looks for the ticket, else the first one, as credentials-fetcher has it.
    """
    domain = domain_of(spec)
    entries = [entry for _, entry in accounts_of(spec) if text_of(entry, "Name").rstrip("$")]
    if not entries:
        return ""
    machine = text_of(domain, "MachineAccountName")
    listed = [entry for entry in entries if plain(entry["Name"]) == plain(machine)]
    if not listed:
        if domain.pop("MachineAccountName", None) is not None:
            notes.append("/DomainJoinConfig/MachineAccountName: not in the list of accounts")
        listed = [entry for entry in entries if plain(entry["Name"]) == plain(entries[0]["Name"])]
    for entry in listed:
        if not text_of(entry, "Scope") and text_of(domain, "DnsName"):
            entry["Scope"] = domain["DnsName"]
            notes.append(f"account {entry['Name'][:80]!r}: no Scope")
    directory_of(spec)["GroupManagedServiceAccounts"] = listed
    return text_of(domain, "MachineAccountName")


def _drop_empty(table: dict[str, Any], keys: tuple[str, ...], where: str, notes: list[str]) -> None:
    for key in keys:
        if key in table and table[key] in (None, ""):
            del table[key]
            notes.append(f"{where}/{key}: empty")
