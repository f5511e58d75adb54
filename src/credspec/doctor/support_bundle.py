"""One archive with diagnostics of a host for support, and nothing secret.

Its members have the same names on every host; what could not be found out is said in place of it.
No key, password, ticket or managed password is read for it, except for what `check` does anyway.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import subprocess
import tarfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from credspec.api_client import AgentClient
from credspec.config.host import CONFIG_VARIABLE, DEFAULT_CONFIG_PATH, Config
from credspec.doctor import host_facts
from credspec.doctor.redaction import Redactor
from credspec.errors import CredspecError, NotPermittedError, UsageError
from credspec.spec.document import CredentialSpec
from credspec.spec.encoding import MAX_SPEC_BYTES
from credspec.spec.strict_json import parse_json

TOP: Final = "credspec-support"
_CHECK_SECONDS: Final = 180
_SECONDS: Final = 15
_LINES: Final = 300
_MAX_SPECS: Final = 1000
_VARIABLES: Final = re.compile(
    r"CREDSPEC|KRB5|DOCKER_|CONTAINER|XDG_RUNTIME_DIR|LC_|LANG|.*_proxy$"
)
_README: Final = """\
What `credspec support-bundle` found on a host.

Left out: passwords, keys, tickets, what plug-ins of credential specs are given, values of
environment variables, and all that the configuration has other than names and paths. It names
hosts, domains, accounts, users and containers: read it before you send it.
"""


def make_bundle(path: Path, config: Config, *, program: Path) -> None:
    """Write the archive to a new file that only its owner may read.

    `program` is ``credspec``, which is run for its ``check``.

    Raises:
        UsageError: `support-bundle-exists`.
        NotPermittedError, CredspecError: `support-bundle-unwritable`.
    """
    members = collect(config, program=program, environment=dict(os.environ))
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise UsageError.of(
            "support-bundle-exists",
            "there is a file",
            where=str(path),
            remedy="give another --path",
        ) from None
    except OSError as error:
        kind = NotPermittedError if isinstance(error, PermissionError) else CredspecError
        raise kind.of(
            "support-bundle-unwritable",
            error.strerror or str(error),
            where=str(path),
            remedy="give another --path",
        ) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(_archive(members))


def collect(config: Config, *, program: Path, environment: Mapping[str, str]) -> dict[str, bytes]:
    """Return the members of the archive by name, redacted."""
    redactor = Redactor()
    redactor.learn_environment(environment)
    found: dict[str, Any] = {
        # The first two say what is secret on this host.
        "configuration.json": _told(lambda: _configuration(redactor, environment)),
        "specs.json": _told(lambda: _specs(redactor, config)),
        "versions.json": _told(host_facts.versions),
        "environment.json": sorted(name for name in environment if _VARIABLES.match(name)),
        "keytab.json": _told(lambda: _keytab(config)),
        "check.json": _told(lambda: _check(program)),
        "status.json": _told(lambda: _status(config)),
        "units.json": _told(host_facts.units),
        "engines.json": _told(host_facts.engines),
        "mounts.txt": _told(lambda: host_facts.mounts(config)),
        "audit.jsonl": _told(lambda: host_facts.tail(config.audit_log)),
        "journal.txt": _told(host_facts.journal),
        "README.txt": _README,
    }
    members: dict[str, bytes] = {}
    for name, value in found.items():
        clean = redactor.value(value)
        text = (
            clean if isinstance(clean, str) else json.dumps(clean, indent=2, sort_keys=True) + "\n"
        )
        members[name] = text.encode("utf-8", "replace")
    return members


def _told(find: Callable[[], Any]) -> Any:
    """Return what is found, or why it could not be."""
    try:
        return find()
    except CredspecError as error:
        return {"error": [{"code": each.code, "where": each.where} for each in error.problems]}
    except Exception as error:  # noqa: BLE001 - an odd host is what this is for
        detail = error.strerror if isinstance(error, OSError) else None
        return {"error": f"{type(error).__name__}: {detail or 'no details'}"}


def _configuration(redactor: Redactor, environment: Mapping[str, str]) -> Any:
    path = Path(environment.get(CONFIG_VARIABLE) or DEFAULT_CONFIG_PATH)
    if not path.exists():
        return {"file": str(path), "found": "no such file: every key has its default"}
    text = path.read_text("utf-8", "replace")
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        redactor.learn(text)
        return {"file": str(path), "error": "not TOML; `credspec status` says where"}
    return {"file": str(path), "values": redactor.configuration(document)}


def _specs(redactor: Redactor, config: Config) -> Any:
    rows = []
    for path in sorted(config.spec_directory.iterdir())[:_MAX_SPECS]:
        if not path.is_file():
            continue
        status = path.stat()
        row: dict[str, Any] = {"name": path.name, "owner": status.st_uid, "bytes": status.st_size}
        row["mode"] = f"{status.st_mode & 0o7777:04o}"
        with path.open("rb") as file:
            data = file.read(MAX_SPEC_BYTES + 1)
        shown: set[str] = set()
        try:
            spec = CredentialSpec.from_bytes(data)
        except CredspecError as error:
            row["errors"] = sorted({problem.code for problem in error.problems})
        else:
            row |= {"domain": spec.domain, "accounts": list(spec.accounts)}
            domain = spec.domain_join_config
            names = (domain.net_bios_name or "", domain.dns_tree_name or "", domain.sid or "")
            shown = {spec.domain, *spec.accounts, spec.default_account, *names, domain.guid or ""}
            shown |= {entry.scope for entry in spec.other_accounts}
        _learn_spec(redactor, data, shown)
        rows.append(row)
    return rows


def _learn_spec(redactor: Redactor, data: bytes, shown: set[str]) -> None:
    """Remember all strings of a document but names that are shown, whatever fields it has."""
    text = data.decode("utf-8", "replace")
    try:
        document: Any = parse_json(text.lstrip("\ufeff"))
    except CredspecError:
        document = [text, *_literals(text)]
    known = {each.rstrip("$").casefold() for each in shown}
    redactor.learn(redactor.without(document, known))


def _literals(text: str) -> Iterator[str]:
    """Return the strings of what is nearly JSON, as they are written and what they mean."""
    for found in re.finditer(r'"((?:[^"\\]|\\.)*)(?:"|\Z)', text):
        yield found[1]
        with suppress(ValueError):
            yield json.loads(f'"{found[1]}"', strict=False)


def _keytab(config: Config) -> Any:
    from credspec.kerberos.keys import enctype_name
    from credspec.kerberos.keytab_contents import keytab_enctypes
    from credspec.session.keytab_principal import read_keytab

    rows = [
        {
            "principal": entry.name,
            "kvno": entry.key_version,
            "written": entry.timestamp,
            "encryption_types": sorted(
                enctype_name(each) for each in keytab_enctypes(config.keytab, entry.name)
            ),
        }
        for entry in read_keytab(config.keytab)
    ]
    return {"file": str(config.keytab), "entries": rows}


def _check(program: Path) -> Any:
    shown = subprocess.run(
        [str(program), "check", "--output", "json"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=_CHECK_SECONDS,
    )
    try:
        return json.loads(shown.stdout)
    except ValueError:
        return {"status": shown.returncode, "standard_error": shown.stderr.splitlines()[-_LINES:]}


def _status(config: Config) -> Any:
    client = AgentClient(config.agent_socket, seconds=_SECONDS)
    state: dict[str, Any] = {}
    for name in ("identities", "leases", "domains"):
        state |= client.get(f"/v1/{name}")
    return state


def _archive(members: Mapping[str, bytes]) -> bytes:
    """Return a compressed tar archive, the same for the same members."""
    packed = io.BytesIO()
    # Without a file name and a time in the header.
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, data in sorted(members.items()):
            entry = tarfile.TarInfo(f"{TOP}/{name}")
            entry.size, entry.mode = len(data), 0o600
            archive.addfile(entry, io.BytesIO(data))
    return packed.getvalue()
