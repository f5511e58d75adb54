"""What goes into distribution packages, without building one: tests/packages builds them."""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from click import Context, Group

from credspec import installation
from credspec.agent import config, domain_config
from credspec.cli.main import credspec, missing_package
from credspec.providers import settings

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "packaging/config.toml"
# Uncommented, it is this: keys, tables and the one client of the account provider.
COMMENTED = re.compile(r'^#(?=[a-z_]+ = |\[|"win1)', re.MULTILINE)


def load(name: str) -> ModuleType:
    path = ROOT / f"packaging/packages/{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def uncommented() -> str:
    return COMMENTED.sub("", CONFIG.read_text())


def test_the_packaged_configuration_changes_nothing() -> None:
    assert config.load_config(CONFIG) == config.Config()


def test_the_packaged_configuration_has_every_key_of_the_agent() -> None:
    document = tomllib.loads(uncommented())
    for table, keys in config._KNOWN.items():
        content = document[table] if table else document
        assert set(content) == keys, table
    assert set(document["domains"]["contoso.com"]) == domain_config._KEYS
    assert set(settings._READERS) <= set(document["providers"])


def test_the_packaged_configuration_loads_with_every_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "_uids", lambda *_: [1000])  # the users of the examples
    path = tmp_path / "config.toml"
    path.write_text(uncommented())
    loaded = config.load_config(path)
    assert loaded.providers.enabled == ("vault",)
    defaults = config.Config()
    for name in ("run_directory", "spec_directory", "audit_log", "log_format", "keytab"):
        assert getattr(loaded, name) == getattr(defaults, name), name
    assert loaded.policy.leases_per_user == defaults.policy.leases_per_user


def commands(group: Group, context: Context) -> list[str]:
    names = [context.command_path.replace(" ", "-")]
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        inner = Context(found, info_name=name, parent=context)
        is_group = isinstance(found, Group)
        names += commands(found, inner) if is_group else [inner.command_path.replace(" ", "-")]
    return names


def test_every_command_has_a_manual_page() -> None:
    pages = dict(load("man_pages").pages())
    names = commands(credspec, Context(credspec, info_name="credspec"))
    assert {*pages} == {
        f"{each}.1" for each in (*names, "New-CredentialSpec", "Get-CredentialSpec")
    }
    for name, page in pages.items():
        assert page.startswith(".TH "), name
        assert ".SH NAME" in page
        assert "\b" not in page


def test_text_cannot_be_a_request_of_roff() -> None:
    escaped = load("man_pages").escaped
    assert escaped(".x\n'y\n-z\\") == "\\&.x\n\\&'y\n\\-z\\e"


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
