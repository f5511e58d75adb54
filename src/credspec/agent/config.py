"""The configuration of a host, ``/etc/credspec/config.toml``.

    run_directory = "/run/credspec"            # sockets, journal and leases; must be on tmpfs
    spec_directory = "/etc/credspec/specs"     # where file:// references are looked up
    audit_log = "/var/log/credspec/audit.jsonl"
    log_format = "text"                        # "text" or "json", on standard error
    wait_seconds = 30                          # how long a start waits for agent and domain: see
                                               # docs/runtimes/boot.md

    [host_identity]
    keytab = "/etc/krb5.keytab"                # the machine keytab
    principal = "HOST1$@CONTOSO.COM"           # default: the computer account that is this host
    account = "file:reader"                    # PROVIDER:INPUT, in place of a keytab not there

    [ldap]
    transport = "ldap"                         # "ldap" (sealed, port 389) or "ldaps" (port 636)
    ca_file = "/etc/ssl/certs/contoso.pem"     # with ldaps; default: the system's authorities

    [domains."contoso.com"]                    # one table for each domain that needs one
    controllers = ["dc1.contoso.com"]          # asked first, in this order; default: DNS decides
    site = "Berlin"                            # default: the site that the domain finds

    [policy]
    accounts = ["WebApp*@contoso.com"]         # default: every account that the host may read
    keytabs = ["WebApp01@contoso.com"]         # whose keys containers may have; default: none
    spec_sources = ["file"]                    # add "raw" to take specs from container starters
    users = ["deploy"]                         # who else than root may use the agent; default: none
    leases_per_user = 256                      # how many leases each of them may have at a time

    [credentials_fetcher]                      # for `credspec agent --grpc-compat`
    lease_tree = "/var/credentials-fetcher/krbdir"   # must be on tmpfs
    owner = "0:0"                              # whose the tickets are, and their mode
    mode = "0600"
    users = ["ecs"]                            # who else than root may call; default: none

    [providers]                                # who gives host accounts: docs/providers.md
    enabled = ["vault"]                        # default: none
    secret_seconds = 300                       # how long a password is kept, 0 for one logon only
    deadline_seconds = 10                      # how long a provider may take
    domains = { CONTOSO = "contoso.com" }      # where passwords may go, by NetBIOS name; default:
                                               # the domain that a secret names by its DNS name

    [account_provider]                         # for credspec account-provider: docs/providers.md

Every key may be left out. Unknown keys are errors, since a misspelt one would be a silent default.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from credspec.agent.domain_config import domain_preferences
from credspec.agent.host_users import user_named
from credspec.agent.policy import SPEC_SOURCES, Policy
from credspec.directory.connection import Transport
from credspec.directory.locator import ControllerPreference
from credspec.errors import Problem, UsageError
from credspec.providers.settings import ProviderSettings, provider_settings

CONFIG_VARIABLE: Final = "CREDSPEC_CONFIG"
"""Environment variable that names another configuration file."""

DEFAULT_CONFIG_PATH: Final = Path("/etc/credspec/config.toml")
_KNOWN: Final[dict[str, frozenset[str]]] = {
    "": frozenset(
        {
            *("run_directory", "spec_directory", "audit_log", "log_format", "wait_seconds"),
            *("host_identity", "ldap", "policy", "providers"),
            *("account_provider", "credentials_fetcher", "domains"),
        }
    ),
    "host_identity": frozenset({"keytab", "principal", "account"}),
    "ldap": frozenset({"transport", "ca_file"}),
    "policy": frozenset({"accounts", "keytabs", "spec_sources", "users", "leases_per_user"}),
    "credentials_fetcher": frozenset({"lease_tree", "owner", "mode", "users"}),
}
_TABLES: Final = ("policy", "credentials_fetcher")  # those with readers of their own
_READ_ELSEWHERE: Final = frozenset({"providers", "account_provider", "domains", "wait_seconds"})
_LOG_FORMATS: Final = ("text", "json")
_MOST_LEASES: Final = 100_000
_LONGEST_WAIT: Final = 3600
_OWNER: Final = re.compile(r"(\d{1,9}):(\d{1,9})")
_FILE_MODE: Final = re.compile(r"0?[46][046][046]")
_PATTERN: Final = re.compile(r"[^@/\s]{1,64}(?:@[^@/\s]{1,255})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class FetcherConfig:
    """Settings of credentials-fetcher's interface only.

    `uid`, `gid` and `mode` are those of the tickets; `uids` are the users other than root who may
    call, with any document that they bring.
    """

    lease_tree: Path = Path("/var/credentials-fetcher/krbdir")
    uid: int = 0
    gid: int = 0
    mode: int = 0o600
    uids: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A host's configuration; every field has the default of a joined host.

    `wait_seconds` is for how long the start of a container or of `credspec run` waits for an agent
    or a domain that is not there yet; None for the default of each engine.
    """

    run_directory: Path = Path("/run/credspec")
    spec_directory: Path = Path("/etc/credspec/specs")
    keytab: Path = Path("/etc/krb5.keytab")
    principal: str | None = None
    account: str | None = None
    transport: Transport = Transport.LDAP
    ca_file: Path | None = None
    audit_log: Path = Path("/var/log/credspec/audit.jsonl")
    log_format: str = "text"
    wait_seconds: float | None = None
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
    tables = [document.get(name) for name in _TABLES]
    listed = [table.get("users") for table in tables if isinstance(table, dict)]
    return [n for names in listed if isinstance(names, list) for n in names if isinstance(n, str)]


def _config(document: dict[str, Any], source: Path) -> Config:
    problems: list[Problem] = []
    values: dict[str, Any] = {}
    tables: dict[str, dict[str, Any]] = {name: {} for name in _TABLES}
    for table, known in _KNOWN.items():
        content = document.get(table, {}) if table else document
        if not isinstance(content, dict):
            problems.append(_problem(source, table, content, "a table"))
            continue
        for key, value in content.items():
            name = f"{table}.{key}" if table else key
            if key not in known:
                problems.append(
                    Problem(
                        code="config-unknown-key",
                        found="unknown key",
                        where=f"{source}: {name}",
                        expected="one of " + ", ".join(sorted(known)),
                    )
                )
            elif table in _TABLES:
                read = _policy_value if table == "policy" else _fetcher_value
                tables[table] |= read(key, value, name, source, problems)
            elif key not in _KNOWN and (table or key not in _READ_ELSEWHERE):
                values[key] = _value(key, value, name, source, problems)
    given = document.get("providers", {})
    providers = (
        provider_settings(given, str(source))
        if isinstance(given, dict)
        else [_problem(source, "providers", given, "a table")]
    )
    values["domains"], wrong = domain_preferences(document.get("domains", {}), str(source))
    problems += wrong
    values["wait_seconds"] = _wait_seconds(document.get("wait_seconds"), source, problems)
    table = document.get("account_provider", {})
    if isinstance(table, dict):
        values["account_provider"] = table
    else:
        problems.append(_problem(source, "account_provider", table, "a table"))
    if isinstance(providers, ProviderSettings):
        values["providers"] = providers
    else:
        problems += providers
    if problems:
        raise UsageError(*problems)
    policy, fetcher = (tables[name] for name in _TABLES)
    found = FetcherConfig(**fetcher)
    return Config(policy=Policy(**policy, grpc_uids=found.uids), fetcher=found, **values)


def _wait_seconds(value: object, source: Path, problems: list[Problem]) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float) and value is not True and 0 <= value <= _LONGEST_WAIT:
        return float(value)
    expected = f"a number from 0 to {_LONGEST_WAIT}"
    problems.append(_problem(source, "wait_seconds", value, expected))
    return None


def _policy_value(
    key: str, value: object, name: str, source: Path, problems: list[Problem]
) -> dict[str, Any]:
    if key == "leases_per_user":
        if type(value) is int and 0 < value <= _MOST_LEASES:
            return {key: value}
        problems.append(_problem(source, name, value, f"a number from 1 to {_MOST_LEASES}"))
        return {}
    texts = value if isinstance(value, list) and all(isinstance(v, str) for v in value) else None
    if texts is None:
        problems.append(_problem(source, name, value, "a list of texts"))
        return {}
    if key == "users":
        return {"uids": frozenset(_uids(texts, name, source, problems))}
    if key == "spec_sources":
        wrong, expected = [t for t in texts if t not in SPEC_SOURCES], '"file" or "raw"'
    else:
        wrong = [t for t in texts if not _PATTERN.fullmatch(t)]
        expected = "a pattern of ACCOUNT@DOMAIN, such as WebApp*@contoso.com"
    problems += [_problem(source, name, text, expected) for text in wrong]
    return {key: tuple(texts)}


def _fetcher_value(
    key: str, value: object, name: str, source: Path, problems: list[Problem]
) -> dict[str, Any]:
    if key == "users":
        if isinstance(value, list) and all(isinstance(v, str) for v in value):
            return {"uids": frozenset(_uids(value, name, source, problems))}
        problems.append(_problem(source, name, value, "a list of texts"))
        return {}
    if key == "lease_tree":
        return {key: _value(key, value, name, source, problems)}
    text = value if isinstance(value, str) else ""
    if key == "owner" and (found := _OWNER.fullmatch(text)):
        return {"uid": int(found[1]), "gid": int(found[2])}
    if key == "mode" and _FILE_MODE.fullmatch(text):
        return {"mode": int(text, 8)}
    expected = '"UID:GID", in numbers' if key == "owner" else 'a mode such as "0640"'
    problems.append(_problem(source, name, value, expected))
    return {}


def _uids(names: list[str], where: str, source: Path, problems: list[Problem]) -> list[int]:
    found = []
    for name in names:
        user = user_named(name)
        if user is not None:
            found.append(user.uid)
        else:
            problems.append(_problem(source, where, name, "the name of a user of this host"))
    return found


def _value(key: str, value: object, name: str, source: Path, problems: list[Problem]) -> Any:
    if not isinstance(value, str) or not value or "\0" in value:
        problems.append(_problem(source, name, value, "a text"))
        return None
    if key == "transport":
        if value not in list(Transport):
            problems.append(_problem(source, name, value, '"ldap" or "ldaps"'))
            return None
        return Transport(value)
    if key == "log_format":
        if value not in _LOG_FORMATS:
            problems.append(_problem(source, name, value, '"text" or "json"'))
        return value
    if key in {"principal", "account"}:
        return value
    if not value.startswith("/"):
        problems.append(_problem(source, name, value, "an absolute path"))
    return Path(value)


def _problem(source: Path, name: str, value: object, expected: str) -> Problem:
    return Problem(
        code="config-wrong-value",
        found=repr(value)[:80],
        where=f"{source}: {name}",
        expected=expected,
    )
