"""Writes docs/errors.md: every stable code with its cause and its fix, by step."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from credspec import errors
from credspec.errors import CredspecError, ExitStatus
from credspec.spec.rules.registry import RULES
from docs_reference.error_codes import Raised, raised_codes
from docs_reference.markdown import escaped, wrapped
from docs_reference.text_templates import UNKNOWN

WORDS = Path(__file__).with_name("error_words.toml")
_COMMANDS = ("pip ", "apt-get ", "credspec ", "chown ", "msDS-")
_MOST_CAUSES = 4

# Heading, what happens in the step, and the modules that belong to it; the first that fits counts.
_STEPS = (
    (
        "Command line",
        "Arguments of `credspec`, `New-CredentialSpec` and `Get-CredentialSpec`.",
        r"cli/(?!run)|event_log/|status_page/|spec/file_name",
    ),
    (
        "Configuration",
        "Reading `/etc/credspec/config.toml` ([all keys](configuration.md)).",
        r"config_table|config/(host|domains)\b|providers/(settings|provider_table|account_domains)",
    ),
    (
        "Reading and checking a credential spec",
        "From the reference (`file://`, `raw://`) to a document that may be used.",
        r"spec/(?!conversions|kubernetes|lint|carrier_lint|rules|file_name)",
    ),
    (
        "Converting a credential spec",
        "`credspec convert`, and specs in Kubernetes objects ([forms](convert.md)).",
        r"spec/(conversions|kubernetes)",
    ),
    (
        "Lint warnings",
        "Documents that are accepted but will not do what was intended ([rules](lint.md)).",
        r"spec/(lint|carrier_lint|rules)",
    ),
    (
        "Finding a domain controller",
        "DNS, the choice of a controller, and what it says of its domain.",
        r"directory/(locator|dns_resolver|netlogon|controller_probe|domain|clock|name_lookups)",
    ),
    (
        "Connecting to the directory",
        "LDAP: connection, encryption, certificates, logon.",
        r"directory/(connection|ldap_session|libldap|tls_certificates|logon_cache)",
    ),
    (
        "Accounts and passwords",
        "The gMSA in the directory, who may read its password, and its keys.",
        r"directory/|kerberos/(keys|keytab|md4)",
    ),
    (
        "Kerberos logon and tickets",
        "Answers of the KDC, and libkrb5 on this host.",
        r"kerberos/|session/",
    ),
    (
        "Providers of host accounts",
        "The account of a host that is not joined ([providers](providers.md)).",
        r"providers/|account_provider/",
    ),
    (
        "Policy and permissions",
        "Who may use the agent, and which accounts ([policy](policy.md)).",
        r"config/|agent/leases/(policy_check|subordinate_ids|users_state)",
    ),
    (
        "Agent and leases",
        "Requests to the agent, leases, and the files it writes.",
        r"agent/(?!doors/credentials_fetcher)|api_client|service/|sockets/|rate_limit|errors",
    ),
    (
        "Starting a container",
        "The runtime shim and Podman's hooks, which run when a container starts; `credspec run`.",
        r"contract/|shim/|run/|cli/run",
    ),
    (
        "Docker gateway",
        "Requests that the gateway answers itself ([Docker](runtimes/docker.md)).",
        r"gateway/",
    ),
    (
        "Kubernetes",
        "Webhook and CSI driver ([page](runtimes/kubernetes.md)); the API server as it answers.",
        r"kubernetes/",
    ),
    (
        "Setting up the host and its engines",
        "`credspec setup`.",
        r"setup/(?!credentials_fetcher)",
    ),
    (
        "credentials-fetcher's interface",
        "`credspec agent --grpc-compat` and `credspec import` ([page](credentials-fetcher.md)).",
        r"agent/doors/credentials_fetcher/|fetcher_lease_files|setup/credentials_fetcher",
    ),
    (
        "Doctor",
        "What only `credspec check` reports ([the doctor](check.md)).",
        r"doctor/",
    ),
    (
        "Test domain",
        "`credspec lab`.",
        r"lab/",
    ),
)
# The packages from the lowest layer in pyproject.toml to the highest.
_FROM_BELOW = (
    *("errors", "contract/", "rate_limit", "api_client", "service/", "sockets/", "http/", "spec/"),
    *("event_log/", "fetcher_lease_files", "config_table", "directory/", "kerberos/", "providers/"),
    *("config/", "session/", "shim/"),
    *("agent/", "agent/doors/credentials_fetcher/", "gateway/", "run/", "account_provider/"),
    "kubernetes/",
    *("setup/", "doctor/", "lab/", "status_page/", "cli/"),
)
_EXITS = {
    ExitStatus.OK: "success; `credspec lint` also with warnings",
    ExitStatus.OTHER: "any other error",
    ExitStatus.USAGE: "a command, the configuration or a request is not well formed",
    ExitStatus.INVALID_SPEC: "the credential spec, or the reference to it, cannot be used",
    ExitStatus.UNREACHABLE: "no domain controller (or provider) reachable in time",
    ExitStatus.NOT_PERMITTED: "the directory, the KDC or this host's policy refused",
    ExitStatus.AGENT_UNREACHABLE: "the agent does not answer on its socket",
    ExitStatus.PROGRAM_NOT_EXECUTABLE: "`credspec run`: the program cannot be executed",
    ExitStatus.PROGRAM_NOT_FOUND: "`credspec run`: there is no such program",
}
# Problems that are made apart from their error, by where that happens.
_DEFAULT_KIND = (
    (
        r"config_table|config/(host|domains)\b|providers/settings|providers/account_domains",
        "UsageError",
    ),
    (r"spec/", "InvalidSpecError"),
)
_INTERRUPTED = ("130", "interrupted")
EXIT_STATUSES = [*((str(int(status)), text) for status, text in _EXITS.items()), _INTERRUPTED]
"""Each exit status with its meaning."""
_HEAD = Path(__file__).parent / "heads/errors.md"
_LEAST = 4  # letters of a text that says something


def errors_page() -> str:
    """Return the page.

    Raises:
        ValueError: a code without cause or fix, or words for a code that is no more.
    """
    words = tomllib.loads(WORDS.read_text("utf-8"))
    families = words.pop("families")
    by_code: dict[str, list[Raised]] = {}
    for raised in raised_codes(families):
        by_code.setdefault(raised.code, []).append(raised)
    unused = words.keys() - by_code.keys()
    if unused:
        raise ValueError(f"error_words.toml: codes that are not in the source: {sorted(unused)}")
    parts = [_HEAD.read_text("utf-8"), *_exit_statuses()]
    for title, text, modules in _STEPS:
        codes = sorted(code for code, found in by_code.items() if _step(found) == modules)
        parts += [f"## {title}\n", wrapped(text) + "\n"]
        parts += [_entry(code, by_code[code], words.get(code, {})) for code in codes]
    return "\n".join(parts)


def _exit_statuses() -> Iterator[str]:
    kinds: dict[ExitStatus, list[str]] = {}
    for cls in _kinds().values():
        kinds.setdefault(cls.exit_status, []).append(str(cls.http_status))
    yield "## Exit statuses\n"
    yield "| exit status | meaning | status of the HTTP API |\n|---|---|---|"
    for status in ExitStatus:
        http = ", ".join(sorted(set(kinds.get(status, []))))
        yield f"| {int(status)} | {_EXITS[status]} | {http} |"
    yield f"| {' | '.join(_INTERRUPTED)} |  |"
    yield ""


def _kinds() -> dict[str, type[CredspecError]]:
    return {
        name: cls
        for name, cls in vars(errors).items()
        if isinstance(cls, type) and issubclass(cls, CredspecError)
    }


def _step(found: Sequence[Raised]) -> str:
    """Return the step of a code: that of the lowest package that raises it."""
    module = min((each.module for each in found), key=_height)
    for _, _, modules in _STEPS:
        if re.match(modules, module):
            return modules
    raise ValueError(f"{module}: belongs to no step of errors_page.py")


def _height(module: str) -> int:
    return max(i for i, start in enumerate(_FROM_BELOW) if module.startswith(start))


def _entry(code: str, found: Sequence[Raised], words: Mapping[str, Any]) -> str:
    rule = RULES.get(code)
    causes = [words["cause"]] if "cause" in words else _readable(each.found for each in found)
    if rule is not None:
        causes = [rule.reason]
    fixes = [words["fix"]] if "fix" in words else _readable(each.remedy for each in found)
    if not fixes:
        fixes = [f"Expected: {text}" for text in _readable(each.expected for each in found)]
    if not causes or not fixes:
        raise ValueError(
            f"{code} ({found[0].module}): give it a `remedy` where it is raised, or a cause and a "
            "fix in scripts/docs_reference/error_words.toml"
        )
    lines = [f"### `{code}`\n", _list_item("Cause", causes), _list_item("Fix", fixes)]
    statuses = _statuses(found)
    if statuses and rule is None:
        lines.append(f"- **Exit status:** {statuses}")
    return "\n".join(lines) + "\n"


def _statuses(found: Iterable[Raised]) -> str:
    kinds = _kinds()
    statuses = set()
    for each in found:
        name = each.kind or next(
            (kind for modules, kind in _DEFAULT_KIND if re.match(modules, each.module)), ""
        )
        if name in kinds:
            statuses.add(int(kinds[name].exit_status))
    return ", ".join(map(str, sorted(statuses)))


def _readable(texts: Iterable[str]) -> list[str]:
    """Return the texts that say something, each once."""
    said = [
        alternative.strip()
        for text in texts
        for alternative in text.split(" / ")
        if len(re.sub(r"[…\W]", "", alternative)) >= _LEAST
    ]
    return list(dict.fromkeys(said))


def _list_item(title: str, texts: Sequence[str]) -> str:
    shown = [_sentence(text) for text in texts[:_MOST_CAUSES]]
    if len(texts) > _MOST_CAUSES:
        shown.append("And similar cases.")
    if len(shown) == 1:
        return wrapped(f"- **{title}:** {shown[0]}", "  ")
    items = [wrapped(f"    - {text}", "      ") for text in shown]
    return "\n".join([f"- **{title}:**", *items])


def _sentence(text: str) -> str:
    text = escaped(re.sub(r"\s+", " ", re.sub("…+", UNKNOWN, text)))
    if not text.startswith(_COMMANDS):
        text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "?", "!", ":")) else f"{text}."
