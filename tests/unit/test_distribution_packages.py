"""What goes into distribution packages, without building one: tests/packages builds them."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from types import ModuleType

import pytest

from credspec import installation
from credspec.agent.leases import journal
from credspec.cli.main import missing_package
from credspec.config import host as config
from docs_reference.configuration_keys import REQUIRED, configuration_keys

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "packaging/config.toml"


def load(name: str) -> ModuleType:
    path = ROOT / f"packaging/packages/{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def shown_keys() -> Iterator[tuple[str, str, str]]:
    """Yield table, key and value of every line that is commented out in the packaged file."""
    table = ""
    for line in CONFIG.read_text().splitlines():
        if found := re.fullmatch(r"#\[(.+)\]", line):
            table = found[1]
        elif table == "account_provider.clients" and line.startswith('#"'):
            yield "account_provider", "clients", line.removeprefix("#")
        elif found := re.fullmatch(r"#([a-z_]+) = (.+)", line):
            yield table, found[1], found[2]


def test_the_packaged_configuration_changes_nothing() -> None:
    assert config.load_config(CONFIG) == config.Config()
    assert tomllib.loads(CONFIG.read_text()) == {}


def test_the_packaged_configuration_has_the_keys_of_the_reference_and_their_defaults() -> None:
    """By the table that docs/configuration.md is generated from, so both change together."""
    shown = [*shown_keys()]
    known = {(key.table, key.name): key.default for key in configuration_keys()}
    assert {(table, name) for table, name, _ in shown} == {*known}
    for (table, name), default in known.items():
        values = [value for *where, value in shown if where == [table, name]]
        if default and default != REQUIRED:
            assert default in values, f"{table} {name}"


@pytest.mark.parametrize("auth", ["token", "approle", "cert"])
def test_the_packaged_configuration_loads_with_every_example(tmp_path: Path, auth: str) -> None:
    """Each key with the value that the file shows; of Vault, what one way to log on needs."""
    tables: dict[str, dict[str, str]] = {}
    for table, name, value in shown_keys():
        tables.setdefault(table.replace("NAME", "mine"), {}).setdefault(name, value)
    vault = tables["providers.vault"] | {"auth": f'"{auth}"'}
    needed = {"token": ["token_file"], "approle": ["role_id", "secret_id_file"]}
    needed["cert"] = ["certificate", "key"]
    for each in chain.from_iterable(keys for way, keys in needed.items() if way != auth):
        del vault[each]
    tables["providers.vault"] = vault
    clients = tables["account_provider"].pop("clients")
    names = ["file", "keytab", "vault", "aws", "azure-key-vault", "rancher", "mine"]
    tables["providers"]["enabled"] = json.dumps(names)
    text = "".join(
        f"[{table}]\n" * bool(table) + "".join(f"{k} = {v}\n" for k, v in keys.items())
        for table, keys in sorted(tables.items())
    )
    path = tmp_path / "config.toml"
    path.write_text(f"{text}[account_provider.clients]\n{clients}\n")
    loaded = config.load_config(path)
    assert {*loaded.providers.enabled} == {*names}
    defaults = config.Config()
    for name in ("run_directory", "spec_directory", "audit_log", "log_format", "keytab"):
        assert getattr(loaded, name) == getattr(defaults, name), name
    assert loaded.policy == defaults.policy


@pytest.mark.parametrize(
    ("version", "debian", "rpm"),
    [
        ("0.1.0", "0.1.0-1~deb12", "0.1.0"),
        ("0.1.0.dev0", "0.1.0~dev0-1~deb12", "0.1.0~dev0"),
        ("0.2.0rc1", "0.2.0~rc1-1~deb12", "0.2.0~rc1"),
    ],
)
def test_a_pre_release_is_older_than_its_release(version: str, debian: str, rpm: str) -> None:
    assert load("debian").debian_version(version, "bookworm") == debian
    assert load("rpm").rpm_version(version) == rpm


def test_a_newer_release_s_package_is_newer() -> None:
    older, newer = (load("debian").debian_version("0.1.0", name) for name in ("bookworm", "trixie"))
    command = ["dpkg", "--compare-versions", older, "lt", newer]
    assert subprocess.run(command, check=False).returncode == 0


def test_a_downgrade_is_refused_by_the_format_that_the_journal_has(tmp_path: Path) -> None:
    """`dpkg` is real, the journal and the versions are simulated."""
    script = (ROOT / "packaging/packages/debian/credspec.preinst").read_text()
    changed = script.replace("/run/credspec/journal", str(tmp_path))
    assert changed != script

    def status(*arguments: str) -> int:
        command = ["sh", "-c", changed, "preinst", *arguments]
        return subprocess.run(command, check=False, capture_output=True).returncode

    assert status("upgrade", "0.2.0", "0.1.0") == 0  # no lease
    for known in (journal.FORMAT, journal.TICKETS_FORMAT):
        record = {"format": known, "lease_id": str(known)}
        (tmp_path / f"{known}.json").write_text(json.dumps(record))
        assert status("upgrade", "0.2.0", "0.1.0") == 0
    record = {"format": journal.TICKETS_FORMAT + 1, "lease_id": "3"}
    (tmp_path / "3.json").write_text(json.dumps(record))
    assert status("upgrade", "0.2.0", "0.1.0") == 1
    assert status("upgrade", "0.1.0", "0.2.0") == 0
    assert status("install") == 0


def test_the_version_is_written_down_once() -> None:
    found = load("contents").version(ROOT)
    assert found == installation.__version__
    for name in (
        "pyproject.toml",
        "README.md",
        *map(str, (ROOT / "packaging/packages").glob("*.py")),
    ):
        assert found not in (ROOT / name).read_text(), name


def test_the_version_s_text_has_extras_and_python() -> None:
    first, extras, python = installation.version_text().splitlines()
    assert first.startswith(f"credspec {installation.__version__} (commit ")
    assert extras.startswith("extras: host, ")
    assert python.startswith("Python 3.")


@pytest.mark.parametrize(
    ("extra", "remedy"),
    [
        ("host", "package credspec"),
        ("lab", "package credspec-lab"),
        ("vault", "package credspec-extras"),
    ],
)
def test_what_is_missing_of_a_distribution_package_is_a_package(
    monkeypatch: pytest.MonkeyPatch, extra: str, remedy: str
) -> None:
    assert installation.how_to_install(extra) == f"{sys.prefix}/bin/pip install 'credspec[{extra}]'"
    monkeypatch.setattr(sys, "prefix", "/usr/lib/credspec")
    assert installation.how_to_install(extra) == f"install the {remedy}"
    assert str(installation.program()) == "/usr/bin/credspec"


def test_a_missing_lab_is_one_line() -> None:
    line = missing_package(ModuleNotFoundError("no", name="credspec.lab.provisioning"))
    assert "credspec.lab" in line
    assert line.endswith("[package-missing]")


@pytest.mark.parametrize("name", ["package.lock", "release.lock", "extras.lock"])
def test_build_tools_and_extras_are_locked_with_hashes(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    pinned = re.findall(r"^[A-Za-z0-9_.-]+==\S+", text, re.MULTILINE)
    assert pinned
    assert text.count("--hash=sha256:") >= len(pinned)
