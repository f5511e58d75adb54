"""The configuration of a host, ``/etc/credspec/config.toml``: the whole file, read and checked.

Each table is a dataclass beside what it configures, with a `Key` for each key of the file (see
`credspec.config_table`); docs/configuration.md is made of them. Every key may be left out. Unknown
keys are errors, since a misspelt one would be a silent default.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

from credspec.config.credentials_fetcher import FetcherConfig
from credspec.config.domains import domain_preferences
from credspec.config.policy import Policy
from credspec.config_table import (
    PATH,
    TEXT,
    Key,
    Table,
    choice,
    keys_of,
    number,
    read_keys,
    shown_value,
    unknown_key,
    wrong_value,
)
from credspec.contract.host_paths import VOLUMES
from credspec.directory.connection import Transport
from credspec.directory.controller_preference import ControllerPreference
from credspec.errors import Problem, UsageError
from credspec.providers.settings import ProviderSettings, provider_settings

CONFIG_VARIABLE: Final = "CREDSPEC_CONFIG"
"""Environment variable that names another configuration file."""

DEFAULT_CONFIG_PATH: Final = Path("/etc/credspec/config.toml")

TABLES: Final = frozenset(
    {"account_provider", "credentials_fetcher", "domains", "host_identity", "ldap"}
    | {"policy", "providers"}
)
"""The names of all tables of the file."""

_LOG_FORMATS: Final = ("text", "json")
_LONGEST_WAIT: Final = 3600


@dataclass(frozen=True, kw_only=True)
class HostIdentityTable:
    """What the host logs on with: a machine keytab, or in its place a provider's `account`."""

    table: ClassVar = Table("host_identity", "What the host logs on to the domain with.")

    account: Annotated[
        str | None,
        Key(
            kind=TEXT,
            meaning="A provider and its input, `PROVIDER:INPUT`, used when there is no keytab and "
            "a spec names no account.",
            default="none",
            secret=True,
        ),
    ] = None
    keytab: Annotated[Path, Key(kind=PATH, meaning="The machine keytab.")] = Path(
        "/etc/krb5.keytab"
    )
    principal: Annotated[
        str | None,
        Key(
            kind=TEXT,
            meaning="The principal of the keytab to log on as, such as `HOST1$@CONTOSO.COM`.",
            default="the computer account that is this host",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class LdapTable:
    """How domain controllers are asked."""

    table: ClassVar = Table("ldap", "How the host connects to domain controllers.")

    ca_file: Annotated[
        Path | None,
        Key(
            kind=PATH,
            meaning="With `ldaps`: the authorities, in PEM, that may sign domain controllers' "
            "certificates.",
            default="the system's authorities",
        ),
    ] = None
    transport: Annotated[
        Transport,
        Key(
            kind=choice(*Transport),
            meaning="`ldap` is port 389, sealed by Kerberos; `ldaps` is port 636, TLS with channel "
            "binding.",
        ),
    ] = Transport.LDAP


@dataclass(frozen=True, kw_only=True)
class Config(HostIdentityTable, LdapTable):
    """A host's configuration; every field has the default of a joined host.

    Its own keys are those outside of tables. `wait_seconds` is for how long the start of a
    container or of `credspec run` waits for an agent or a domain that is not there yet; None for
    the default of each engine.
    """

    table: ClassVar = Table("", "Paths and logging.")

    audit_log: Annotated[
        Path,
        Key(
            kind=PATH,
            meaning="Every decision is appended to this file, one JSON object a line.",
        ),
    ] = Path("/var/log/credspec/audit.jsonl")
    log_format: Annotated[
        str,
        Key(
            kind=choice(*_LOG_FORMATS),
            meaning="Format of the log on standard error; under systemd it goes to the journal.",
            reloaded=True,
        ),
    ] = "text"
    run_directory: Annotated[
        Path,
        Key(kind=PATH, meaning="Holds sockets, the journal and the leases. Must be on a tmpfs."),
    ] = Path("/run/credspec")
    spec_directory: Annotated[
        Path,
        Key(kind=PATH, meaning="Where `file://` references are looked up. Must belong to root."),
    ] = Path("/etc/credspec/specs")
    wait_seconds: Annotated[
        float | None,
        Key(
            kind=number(0, _LONGEST_WAIT),
            meaning="How long the start of a container waits for an agent or a domain that is not "
            "there yet, in seconds.",
            default="30, with containerd 10",
        ),
    ] = None
    policy: Policy = field(default_factory=Policy)
    fetcher: FetcherConfig = field(default_factory=FetcherConfig)
    providers: ProviderSettings = field(default_factory=ProviderSettings)
    domains: Mapping[str, ControllerPreference] = field(default_factory=dict)
    account_provider: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def agent_socket(self) -> Path:
        """Where the agent listens."""
        return self.run_directory / "agent.sock"

    @property
    def gateway_socket(self) -> Path:
        """Where the Docker gateway listens."""
        return self.run_directory / "docker.sock"

    @property
    def leases_directory(self) -> Path:
        """Holds one small tmpfs for each lease of a container; for root only."""
        return self.run_directory / "leases"

    @property
    def process_leases_directory(self) -> Path:
        """The same for processes without a container, whose users pass through it."""
        return self.run_directory / "process-leases"

    @property
    def volumes_directory(self) -> Path:
        """The same for volumes of pods, by the CSI driver; for root only."""
        return self.run_directory / VOLUMES

    @property
    def journal_directory(self) -> Path:
        """Holds one record for each lease."""
        return self.run_directory / "journal"


def load_config(path: Path | None = None) -> Config:
    """Read the configuration.

    Without `path`, the file is the one that ``CREDSPEC_CONFIG`` names, else the default one, which
    may be absent.

    Raises:
        UsageError: with every problem of the file: `config-unreadable`, `config-not-toml`,
            `config-unknown-key`, `config-wrong-value`.
    """
    named = path or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    source = named or DEFAULT_CONFIG_PATH
    try:
        document = tomllib.loads(source.read_text("utf-8"))
    except FileNotFoundError:
        if named is None:
            return Config()
        raise UsageError.of(
            "config-unreadable", "no such file", where=str(source), expected="a configuration file"
        ) from None
    except OSError as error:
        raise UsageError.of(
            "config-unreadable", error.strerror or str(error), where=str(source)
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError.of("config-not-toml", str(error), where=str(source)) from None
    return _config(document, source)


def users_in_configuration(path: Path | None = None) -> list[str]:
    """Return the names of all users that a configuration names, none if it cannot be read.

    Whether they exist is not checked.
    """
    source = path or Path(os.environ.get(CONFIG_VARIABLE) or DEFAULT_CONFIG_PATH)
    try:
        document = tomllib.loads(source.read_text("utf-8"))
    except (OSError, ValueError):
        return []
    tables = [document.get(declared.table.name) for declared in (Policy, FetcherConfig)]
    listed = [table.get("users") for table in tables if isinstance(table, dict)]
    return [n for names in listed if isinstance(names, list) for n in names if isinstance(n, str)]


def _config(document: Mapping[str, Any], source: Path) -> Config:
    problems: list[Problem] = []

    def table(name: str) -> dict[str, Any]:
        content = document.get(name, {})
        if isinstance(content, dict):
            return content
        problems.append(wrong_value(f"{source}: {name}", shown_value(content), "a table"))
        return {}

    def unknown(name: str, _: object) -> Problem | None:
        known = {*keys_of(Config), *TABLES}
        return None if name in TABLES else unknown_key(f"{source}: {name}", known)

    def read(declared: type, name: str) -> dict[str, Any]:
        found, wrong = read_keys(keys_of(declared), table(name), f"{source}: {name}.")
        problems.extend(wrong)
        return found

    values, wrong = read_keys(keys_of(Config), document, f"{source}: ", unknown=unknown)
    problems += wrong
    values |= read(HostIdentityTable, "host_identity") | read(LdapTable, "ldap")
    policy, fetcher = read(Policy, "policy"), read(FetcherConfig, "credentials_fetcher")
    values["domains"], wrong = domain_preferences(document.get("domains", {}), str(source))
    problems += wrong
    values["account_provider"] = table("account_provider")
    providers = provider_settings(table("providers"), str(source))
    if isinstance(providers, ProviderSettings):
        values["providers"] = providers
    else:
        problems += providers
    if problems:
        raise UsageError(*problems)
    found = FetcherConfig(**fetcher)
    return Config(policy=Policy(**policy, grpc_uids=found.uids), fetcher=found, **values)
