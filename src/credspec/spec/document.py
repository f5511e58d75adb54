"""The credential spec as frozen dataclasses, read from and written to JSON.

Field meanings: the schema in ``schema/credential-spec.schema.json``. Written documents have the
key order of Windows PowerShell, and keys unknown here keep their values behind the known ones.
"""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Final, Self

from credspec.errors import InvalidSpecError, Problem
from credspec.spec.encoding import check_text, decode_spec
from credspec.spec.strict_json import parse_json
from credspec.spec.validation import problems_of, unwrapped

# A hostile document can hold thousands of problems; no reader needs more than these.
_MAX_REPORTED: Final = 100

# Valid inside JSON strings, but many tools take them for ends of lines.
_LINE_ENDS: Final = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}

_Extra = dict[str, Any]


def _no_extra() -> _Extra:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainJoinConfig:
    """The domain, and the account a container uses unless it asks for another."""

    sid: str | None = None
    machine_account_name: str | None = None
    guid: str | None = None
    dns_tree_name: str | None = None
    dns_name: str
    net_bios_name: str | None = None
    extra: _Extra = field(default_factory=_no_extra, repr=False, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupManagedServiceAccount:
    """An account that processes in the container may use; `scope` names its domain."""

    name: str
    scope: str
    extra: _Extra = field(default_factory=_no_extra, repr=False, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class HostAccountConfig:
    """How a host outside the domain gets an account that may read the managed password.

    `plugin_input` may hold a password and never shows in ``repr``.
    """

    portable_ccg_version: str | None = None
    plugin_guid: str | None = None
    plugin_input: str | dict[str, Any] | None = field(default=None, hash=False)
    extra: _Extra = field(default_factory=_no_extra, hash=False)

    def __repr__(self) -> str:
        shown = None if self.plugin_input is None else "<redacted>"
        return (
            f"HostAccountConfig(portable_ccg_version={self.portable_ccg_version!r}, "
            f"plugin_guid={self.plugin_guid!r}, plugin_input={shown!r})"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveDirectoryConfig:
    """The accounts, and how the host logs on to read their passwords."""

    group_managed_service_accounts: tuple[GroupManagedServiceAccount, ...]
    host_account_config: HostAccountConfig | None = None
    extra: _Extra = field(default_factory=_no_extra, repr=False, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialSpec:
    """A credential spec: which accounts of which domain a container gets.

    The constructors `from_bytes`, `from_text` and `from_json` check the whole document. Building
    one field by field checks nothing; ``CredentialSpec.from_json(spec.to_json())`` does.
    """

    cms_plugins: tuple[str, ...] = ("ActiveDirectory",)
    domain_join_config: DomainJoinConfig
    active_directory_config: ActiveDirectoryConfig
    extra: _Extra = field(default_factory=_no_extra, repr=False, hash=False)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read the contents of a credential spec file.

        Raises:
            InvalidSpecError: the encoding, the JSON or the document is wrong; see
                `credspec.spec.encoding.decode_spec` and `from_text`.
        """
        return cls.from_text(decode_spec(data))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read a credential spec from JSON text; a leading byte order mark is skipped.

        Raises:
            InvalidSpecError: not JSON (see `credspec.spec.strict_json.parse_json`), or any of
                the problems of `from_json`.
        """
        text = text.removeprefix("\ufeff")
        check_text(text)
        return cls.from_json(parse_json(text))

    @classmethod
    def from_json(cls, document: Any) -> Self:
        """Read a credential spec from parsed JSON.

        A Kubernetes ``GMSACredentialSpec`` object is read too: the document is its ``credspec``.

        Raises:
            InvalidSpecError: with every problem that
                `credspec.spec.validation.problems_of` finds.
        """
        problems = problems_of(document)
        if problems:
            raise InvalidSpecError(*_first_of(problems))
        rest = deepcopy(unwrapped(document)[0])
        return cls(
            cms_plugins=tuple(rest.pop("CmsPlugins")),
            domain_join_config=_read_domain(rest.pop("DomainJoinConfig")),
            active_directory_config=_read_directory(rest.pop("ActiveDirectoryConfig")),
            extra=rest,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the document with its keys in the order Windows writes them.

        Fields that are None are left out. For a document x that `from_json` accepts as it is,
        ``from_json(x).to_json() == x``.
        """
        return {
            "CmsPlugins": list(self.cms_plugins),
            "DomainJoinConfig": _write_domain(self.domain_join_config),
            "ActiveDirectoryConfig": _write_directory(self.active_directory_config),
            **deepcopy(self.extra),
        }

    def to_text(self, *, compact: bool = False) -> str:
        """Return the document as JSON text; it holds `plugin_input` in clear text.

        The usual form is indented and ends in a line feed; the compact form is one line without
        any, for annotations and environment variables.
        """
        document = self.to_json()
        if compact:
            text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
            return text.translate(_LINE_ENDS)
        return json.dumps(document, ensure_ascii=False, indent=2).translate(_LINE_ENDS) + "\n"

    @property
    def domain(self) -> str:
        """DNS name of the domain in lower case."""
        return self.domain_join_config.dns_name.lower()

    @property
    def accounts(self) -> tuple[str, ...]:
        """Names of the accounts, each once, in document order, without the trailing ``$``.

        Names that differ only by letter case are one account; the first spelling is kept.
        """
        unique: dict[str, str] = {}
        for account in self.active_directory_config.group_managed_service_accounts:
            name = account.name.rstrip("$")
            unique.setdefault(name.casefold(), name)
        return tuple(unique.values())

    @property
    def own_accounts(self) -> tuple[str, ...]:
        """Names of the default account, and of those that the spec's own domain has, as `accounts`.

        An account without scope is of the spec's own domain.
        """
        unique = {self.default_account.casefold(): self.default_account}
        for account in self.active_directory_config.group_managed_service_accounts:
            if self.is_own_scope(account.scope):
                name = account.name.rstrip("$")
                unique.setdefault(name.casefold(), name)
        return tuple(unique.values())

    @property
    def other_accounts(self) -> tuple[GroupManagedServiceAccount, ...]:
        """The entries whose scope is another domain than the spec's own, in document order."""
        return tuple(
            account
            for account in self.active_directory_config.group_managed_service_accounts
            if not self.is_own_scope(account.scope)
        )

    def is_own_scope(self, scope: str) -> bool:
        """Return whether a scope is a name that the spec gives to its own domain, or none."""
        own = {"", self.domain, (self.domain_join_config.net_bios_name or "").lower()}
        return scope.lower().removesuffix(".") in own

    @property
    def default_account(self) -> str:
        """The account a container uses by default: MachineAccountName, or else the first one."""
        name = self.domain_join_config.machine_account_name
        return self.accounts[0] if name is None else name.rstrip("$")


def _first_of(problems: tuple[Problem, ...]) -> list[Problem]:
    shown = list(problems[:_MAX_REPORTED])
    if len(problems) > _MAX_REPORTED:
        more = len(problems) - _MAX_REPORTED
        shown.append(Problem(code="spec-more-problems", found=f"{more} more problems"))
    return shown


def _read_domain(rest: dict[str, Any]) -> DomainJoinConfig:
    return DomainJoinConfig(
        sid=rest.pop("Sid", None),
        machine_account_name=rest.pop("MachineAccountName", None),
        guid=rest.pop("Guid", None),
        dns_tree_name=rest.pop("DnsTreeName", None),
        dns_name=rest.pop("DnsName"),
        net_bios_name=rest.pop("NetBiosName", None),
        extra=rest,
    )


def _read_directory(rest: dict[str, Any]) -> ActiveDirectoryConfig:
    accounts = tuple(
        GroupManagedServiceAccount(name=raw.pop("Name"), scope=raw.pop("Scope"), extra=raw)
        for raw in rest.pop("GroupManagedServiceAccounts")
    )
    host = rest.pop("HostAccountConfig", None)
    return ActiveDirectoryConfig(
        group_managed_service_accounts=accounts,
        host_account_config=None if host is None else _read_host(host),
        extra=rest,
    )


def _read_host(rest: dict[str, Any]) -> HostAccountConfig:
    return HostAccountConfig(
        portable_ccg_version=rest.pop("PortableCcgVersion", None),
        plugin_guid=rest.pop("PluginGUID", None),
        plugin_input=rest.pop("PluginInput", None),
        extra=rest,
    )


def _write_domain(domain: DomainJoinConfig) -> dict[str, Any]:
    return _given(
        {
            "Sid": domain.sid,
            "MachineAccountName": domain.machine_account_name,
            "Guid": domain.guid,
            "DnsTreeName": domain.dns_tree_name,
            "DnsName": domain.dns_name,
            "NetBiosName": domain.net_bios_name,
        },
        domain.extra,
    )


def _write_directory(config: ActiveDirectoryConfig) -> dict[str, Any]:
    host = config.host_account_config
    accounts = [
        _given({"Name": account.name, "Scope": account.scope}, account.extra)
        for account in config.group_managed_service_accounts
    ]
    return _given(
        {
            "GroupManagedServiceAccounts": accounts,
            "HostAccountConfig": None if host is None else _write_host(host),
        },
        config.extra,
    )


def _write_host(host: HostAccountConfig) -> dict[str, Any]:
    return _given(
        {
            "PortableCcgVersion": host.portable_ccg_version,
            "PluginGUID": host.plugin_guid,
            "PluginInput": deepcopy(host.plugin_input),
        },
        host.extra,
    )


def _given(known: dict[str, Any], extra: _Extra) -> dict[str, Any]:
    return {key: value for key, value in known.items() if value is not None} | deepcopy(extra)
