"""Takes over what an installation of credentials-fetcher has: accounts, and its configuration.

Its metadata names account and domain of every ticket, and who logged on for it; its two
configuration files name secrets and controllers. Of the accounts specs are made, of the rest lines
of configuration, or it is said why not. Nothing of it is changed, and no link is followed.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from credspec.directory.account_identity import valid_account_name
from credspec.directory.locator import valid_domain
from credspec.errors import CredspecError, InvalidSpecError, NotPermittedError, Problem, UsageError
from credspec.fetcher_lease_files import (
    LEASE_ID,
    MOST_METADATA_BYTES,
    TicketEntry,
    metadata_name,
    read_metadata,
)
from credspec.path_walk import opened_directory, read_file
from credspec.spec.document import CredentialSpec
from credspec.spec.encoding import MAX_SPEC_BYTES
from credspec.spec.host_account_plugins import host_account_config
from credspec.spec.spec_directory import SpecDirectory, SpecExistsError

LEASE_TREE: Final = Path("/var/credentials-fetcher/krbdir")
ECS_CONFIG: Final = Path("/etc/ecs/ecs.config")
FETCHER_CONFIG: Final = Path("/etc/credentials-fetcher.conf")

_MOST_LEASES: Final = 100_000
_MOST_CONFIG_BYTES: Final = 1 << 20
_SECRET_USER: Final = "awsdomainlessusersecret:"  # noqa: S105 - a marker, not a secret
_KUBERNETES_USER: Final = re.compile(r"kube(hostprincipal|domainlessusersecret:.*)")
_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")

_SECRET_KEYS: Final = frozenset(
    {"CREDENTIALS_FETCHER_SECRET_NAME_FOR_DOMAINLESS_GMSA", "CFGmsaSecretName"}
)
# What needs no counterpart, and why.
_NOT_NEEDED: Final = {
    "DOMAIN_CONTROLLER_GMSA": "domain controllers are found by DNS and chosen by LDAP ping",
    "CF_GMSA_DISTINGUISHED_NAME": "the account is found wherever it is in the directory",
    "CF_GMSA_OU": "the account is found wherever it is in the directory",
    "LDAPSearchTimeout": "every question to a controller has a deadline",
    "RunRenewalNonDomainJoined": "every ticket is renewed in time, for any account",
}
_SPEC_FILE_KEY: Final = "CF_CRED_SPEC_FILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the installation is; any of them may be missing."""

    lease_tree: Path = LEASE_TREE
    ecs_config: Path = ECS_CONFIG
    fetcher_config: Path = FETCHER_CONFIG


@dataclass(slots=True)
class Takeover:
    """What an installation has, for this system.

    `specs` are texts by the names of their files, `configuration` lines of credspec's, `notes` what
    needs no counterpart, `refused` what cannot be taken over.
    """

    specs: dict[str, str] = field(default_factory=dict)
    configuration: list[str] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    refused: list[Problem] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values, without the texts of the specs."""
        return {
            "specs": sorted(self.specs),
            "configuration": self.configuration,
            "notes": [problem._asdict() for problem in self.notes],
            "refused": [problem._asdict() for problem in self.refused],
        }


def read_installation(sources: Sources) -> Takeover:
    """Read what is there; what cannot be read or kept is among `Takeover.refused`."""
    found = Takeover()
    secret = ""
    for path, read in ((sources.ecs_config, _ecs), (sources.fetcher_config, _fetcher)):
        for key, value in _settings(path, found):
            secret = _take_setting(found, path, read(key), value) or secret
    for where, entry in _entries(sources.lease_tree, found):
        try:
            _take_entry(found, where, entry, secret)
        except CredspecError as error:
            found.refused += [problem._replace(where=where) for problem in error.problems]
    if sources.lease_tree != LEASE_TREE and found.specs:
        found.configuration += [
            "[credentials_fetcher]",
            f"lease_tree = {_quoted(str(sources.lease_tree))}",
        ]
    return found


def write_specs(found: Takeover, directory: SpecDirectory) -> list[str]:
    """Write the specs, and return the names of those written; one that is there already is kept.

    A file of the same name with other contents is among `Takeover.refused` afterwards.

    Raises:
        CredspecError: as `SpecDirectory.write`.
    """
    written = []
    for name, text in sorted(found.specs.items()):
        try:
            directory.write(name, text, no_clobber=True)
        except SpecExistsError:
            present = b""
            with suppress(InvalidSpecError):
                present = directory.read(name)
            if present != text.encode():
                found.refused.append(
                    Problem(
                        code="spec-exists",
                        found="a spec of that name, with other contents, is there already",
                        where=name,
                        remedy="compare it with what `credspec new` makes, and keep the right one",
                    )
                )
        else:
            written.append(name)
    return written


def read_settings(data: bytes, where: str) -> tuple[list[tuple[str, str]], list[Problem]]:
    """Read lines of ``KEY=VALUE``, as both configuration files have them.

    Values may be in quotes. Lines that are neither that, nor empty, nor a comment are problems.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return [], [Problem(code="settings-invalid", found="not text in UTF-8", where=where)]
    settings, problems = [], []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        if not equals or not _KEY.fullmatch(key) or not (value.isprintable()):
            # Never quoted: files of other programs may hold secrets.
            problems.append(
                Problem(code="settings-invalid", found="not KEY=VALUE", where=f"{where}:{number}")
            )
            continue
        settings.append((key, value))
    return settings, problems


def read_unlinked(path: Path, most: int) -> bytes | None:
    """Read a file whose path has no link in it; None if it is not there.

    Raises:
        NotPermittedError: `path-link`, `file-unreadable`.
        UsageError: `file-unreadable`.
    """
    try:
        with opened_directory("/", path.absolute().parent.parts[1:]) as parent:
            return read_file(path.name, parent, most)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unread(path, error) from None


def _unread(path: Path, error: OSError) -> CredspecError:
    if error.errno in {errno.ELOOP, errno.ENOTDIR}:
        return NotPermittedError.of(
            "path-link", "symbolic links are not followed", where=str(path), expected="a file"
        )
    kind = NotPermittedError if isinstance(error, PermissionError) else UsageError
    return kind.of("file-unreadable", error.strerror or str(error), where=str(path))


def _settings(path: Path, found: Takeover) -> list[tuple[str, str]]:
    try:
        data = read_unlinked(path, _MOST_CONFIG_BYTES)
    except CredspecError as error:
        found.refused += error.problems
        return []
    settings, problems = read_settings(data or b"", str(path))
    found.refused += problems
    return settings


def _ecs(key: str) -> str | None:
    """Return a key of the ECS agent's file if it is credentials-fetcher's."""
    ours = {*_SECRET_KEYS, *_NOT_NEEDED, _SPEC_FILE_KEY}
    return key if key in ours else None


def _fetcher(key: str) -> str | None:
    return key


def _take_setting(found: Takeover, path: Path, key: str | None, value: str) -> str:
    """Take a setting over; return the name of the secret if that is what it is."""
    where = f"{path}: {key}"
    if key is None or not value:
        return ""
    if key in _SECRET_KEYS:
        try:
            host_account_config(f"aws-secret-name={value}")
        except UsageError as error:
            found.refused += [problem._replace(where=where) for problem in error.problems]
            return ""
        return value
    if key in _NOT_NEEDED:
        found.notes.append(Problem(code="not-needed", found=_NOT_NEEDED[key], where=where))
    elif key == _SPEC_FILE_KEY:
        _take_spec_file(found, Path(value.partition(":")[0]), where)
    else:
        found.refused.append(
            Problem(code="setting-unknown", found="no counterpart is known", where=where)
        )
    return ""


def _take_spec_file(found: Takeover, path: Path, where: str) -> None:
    try:
        data = read_unlinked(path, MAX_SPEC_BYTES) if path.is_absolute() else None
        if data is None:
            raise UsageError.of("file-unreadable", "no such file", where=str(path))
        spec = CredentialSpec.from_bytes(data)
        _add_spec(found, spec, where)
    except CredspecError as error:
        found.refused += [problem._replace(where=where) for problem in error.problems]


def _entries(tree: Path, found: Takeover) -> Iterator[tuple[str, TicketEntry]]:
    try:
        with opened_directory("/", tree.absolute().parts[1:]) as root:
            leases = sorted(os.listdir(root))  # noqa: PTH208 - pathlib has no descriptors
    except FileNotFoundError:
        return
    except OSError as error:
        found.refused += _unread(tree, error).problems
        return
    for lease in leases[:_MOST_LEASES]:
        path = tree / lease / metadata_name(lease)
        if not LEASE_ID.fullmatch(lease):
            found.refused.append(
                Problem(code="lease-id-invalid", found="not a lease", where=str(tree / lease))
            )
            continue
        try:
            data = read_unlinked(path, MOST_METADATA_BYTES)
            entries = [] if data is None else read_metadata(data)
        except CredspecError as error:
            found.refused += [problem._replace(where=str(path)) for problem in error.problems]
            continue
        yield from ((str(path), entry) for entry in entries)


def _take_entry(found: Takeover, where: str, entry: TicketEntry, secret: str) -> None:
    if _KUBERNETES_USER.fullmatch(entry.user):
        raise UsageError.of(
            "user-kubernetes",
            "the ticket is for a secret of Kubernetes, which nothing here writes",
            remedy="give the pods a RuntimeClass, see docs/runtimes/containerd.md",
        )
    account, domain = valid_account_name(entry.account), valid_domain(entry.domain)
    plugin = ""
    if entry.secret_arn:
        plugin = f"aws={entry.secret_arn}"
    elif entry.user.startswith(_SECRET_USER) or (not entry.user and secret):
        plugin = f"aws-secret-name={entry.user.removeprefix(_SECRET_USER) or secret}"
    elif entry.user:
        found.notes.append(
            Problem(
                code="user-not-kept",
                found=f"{entry.user} logged on for {account}, whose password is not stored",
                where=where,
                remedy="let the caller request that ticket again, from credspec's interface",
            )
        )
    _add_spec(found, _spec(account, domain, plugin), where)


def _spec(account: str, domain: str, plugin: str) -> CredentialSpec:
    directory: dict[str, Any] = {
        "GroupManagedServiceAccounts": [{"Name": account, "Scope": domain}]
    }
    if plugin:
        host = host_account_config(plugin)
        directory["HostAccountConfig"] = {
            "PortableCcgVersion": host.portable_ccg_version,
            "PluginGUID": host.plugin_guid,
            "PluginInput": host.plugin_input,
        }
    return CredentialSpec.from_json(
        {
            "CmsPlugins": ["ActiveDirectory"],
            "DomainJoinConfig": {"DnsName": domain, "MachineAccountName": account},
            "ActiveDirectoryConfig": directory,
        }
    )


def _add_spec(found: Takeover, spec: CredentialSpec, where: str) -> None:
    name = f"{spec.domain}_{valid_account_name(spec.default_account)}.json".lower()
    text = spec.to_text()
    if found.specs.setdefault(name, text) != text:
        found.refused.append(
            Problem(
                code="spec-conflict",
                found="another ticket of the same account logs on with another host account",
                where=where,
                expected=f"one host account for {name}",
            )
        )


def policy_lines(found: Takeover) -> list[str]:
    """Return a policy that allows the accounts found and no others, and who gives host accounts."""
    names = sorted(_names(found.specs.values()))
    lines = ["[policy]", f"accounts = [{', '.join(map(_quoted, names))}]"] if names else []
    if any('"HostAccountConfig"' in text for text in found.specs.values()):
        lines += ["[providers]", 'enabled = ["aws"]']
    return lines


def _names(texts: Iterable[str]) -> set[str]:
    specs = map(CredentialSpec.from_text, texts)
    return {f"{account}@{spec.domain}" for spec in specs for account in spec.accounts}


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
