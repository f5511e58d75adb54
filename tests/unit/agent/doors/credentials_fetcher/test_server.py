from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from credspec.agent.doors.credentials_fetcher import server
from credspec.config.host import Config, FetcherConfig
from credspec.errors import UsageError


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
        "import credspec.agent.doors.credentials_fetcher.server as s; "
        "print([n for n in ('grpc', 'google', 'boto3') if n in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "[]"


STARTING = """
import asyncio, os, subprocess, sys
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
import grpc.aio

async def main(path):
    async def echo(request, context):
        await asyncio.to_thread(subprocess.run, ["/bin/true"], check=True, close_fds=True)
        return request
    calls = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", calls),))
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        call = channel.unary_unary("/t.T/Echo")
        print(len(await asyncio.gather(*(call(b"x", timeout=30) for _ in range(100)))))
    await server.stop(0)

asyncio.run(main(sys.argv[1]))
"""


def test_programs_that_a_provider_starts_do_not_disturb_it(tmp_path: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", STARTING, str(tmp_path / "s")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == "100\n"
