from __future__ import annotations

import json
from pathlib import Path

import pytest

from credspec.errors import CredspecError
from credspec.providers.local_files import (
    FileProvider,
    KeytabProvider,
    SystemdCredentialProvider,
)

CONTENT = json.dumps({"username": "reader", "password": "p", "domainName": "contoso.com"})


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "accounts"
    made.mkdir(mode=0o700)
    (made / "reader").write_text(CONTENT)
    (made / "reader").chmod(0o600)
    return made


def test_a_file(directory: Path) -> None:
    provider = FileProvider({"directory": str(directory)}, 1)
    for name in ("reader", f"{directory}/reader"):
        assert provider.host_account(name).user == "reader"


@pytest.mark.parametrize(
    "name", ["../accounts/reader", "/etc/shadow", "a/b", "", ".", "..", "-x", "r\0", "x" * 200]
)
def test_names_that_lead_elsewhere(directory: Path, name: str) -> None:
    for provider in (FileProvider, KeytabProvider):
        with pytest.raises(CredspecError, match="host-account-input"):
            provider({"directory": str(directory)}, 1).host_account(name)


def test_files_that_others_may_have_made_or_read(directory: Path) -> None:
    provider = FileProvider({"directory": str(directory)}, 1)
    (directory / "link").symlink_to("reader")
    (directory / "folder").mkdir()
    for name in ("link", "folder", "none"):
        with pytest.raises(CredspecError, match="host-account-file"):
            provider.host_account(name)
    (directory / "reader").chmod(0o640)
    with pytest.raises(CredspecError, match="host-account-file"):
        provider.host_account("reader")
    (directory / "reader").chmod(0o600)
    directory.chmod(0o777)
    with pytest.raises(CredspecError, match="host-account-file"):
        provider.host_account("reader")
    directory.chmod(0o700)
    (directory.parent / "away").symlink_to(directory)
    away = FileProvider({"directory": str(directory.parent / "away")}, 1)
    with pytest.raises(CredspecError, match="host-account-file"):
        away.host_account("reader")


def test_a_keytab_is_handed_on_by_its_path(directory: Path) -> None:
    account = KeytabProvider({"directory": str(directory)}, 1).host_account("reader")
    assert account.keytab == directory / "reader"


def test_a_credential_of_systemds(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    provider = SystemdCredentialProvider({}, 1)
    with pytest.raises(CredspecError, match="host-account-no-credentials"):
        provider.host_account("reader")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(directory))
    assert provider.host_account("reader").user == "reader"


def test_settings_that_nobody_knows() -> None:
    with pytest.raises(CredspecError, match="config-unknown-key"):
        FileProvider({"directry": "/x"}, 1)
    with pytest.raises(CredspecError, match="config-wrong-value"):
        FileProvider({"directory": "x"}, 1)
