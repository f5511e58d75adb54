from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from credspec.agent.config import Config, FetcherConfig
from credspec.errors import UsageError
from credspec.runtimes.credentials_fetcher import server


@pytest.mark.parametrize("missing", ["grpc", "google", "google.protobuf"])
def test_without_its_packages_it_says_so(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(server, "find_spec", lambda name: None if name == missing else find(name))
    with pytest.raises(UsageError, match=r"pip install 'credspec\[grpc\]' \[grpc-missing\]"):
        server.check(Config())


def test_without_its_tree_it_says_so(tmp_path: Path) -> None:
    config = Config(fetcher=FetcherConfig(lease_tree=tmp_path / "none"))
    with pytest.raises(UsageError, match=r"credspec setup agent --grpc-compat.*lease-tree-missing"):
        server.check(config)


def test_nothing_of_it_is_imported_unless_asked_for() -> None:
    program = (
        "import sys; import credspec.cli.agent, credspec.agent.daemon; "
        "import credspec.runtimes.credentials_fetcher.server as s; "
        "print([n for n in ('grpc', 'google', 'boto3') if n in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "[]"
