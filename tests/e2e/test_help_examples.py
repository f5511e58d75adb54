"""Every example that any help shows is typed as it stands, and works."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from credspec.cli.main import _COMMANDS
from support.machine.first_process import AS_FIRST_PROCESS

BIN = Path(sys.executable).parent
GROUPS = {
    "lab": ("up", "down", "status", "env", "exec", "samba-tool", "image", "account"),
    "setup": ("agent", "containerd", "docker", "podman"),
    "import": ("credentials-fetcher",),
    "lease": ("revoke",),
}
# These run until they are told to stop, and `host` runs them already: they must say just that.
SERVICES = {"credspec agent", "credspec docker-gateway", "credspec lab exec -- credspec agent"}
# The lab has no account provider, and no container has this lease.
REFUSED = {
    "credspec account-provider --check": "[account-provider-missing]",
    "credspec lease revoke ": "[lease-not-found]",
}
# There is no cluster here; tests/e2e/kubernetes has one.
OF_CLUSTER = ("credspec kubernetes check", "kubectl credspec")
# It would take the domain of this very test run down.
LAST = "credspec lab down"


def examples_of(*command: str) -> list[str]:
    shown = subprocess.run(
        [str(BIN / command[0]), *command[1:], "--help"], capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r"Examples?:\n((?: +\S.*\n?)+)", shown)
    assert found, f"no example in {command}"
    return [line.strip() for line in found[1].splitlines()]


def all_examples() -> list[str]:
    commands = [("credspec",), ("New-CredentialSpec",), ("Get-CredentialSpec",)]
    commands += [("credspec", name) for name in _COMMANDS]
    commands += [("credspec", group, name) for group, names in GROUPS.items() for name in names]
    return list(dict.fromkeys(line for command in commands for line in examples_of(*command)))


@pytest.fixture
def stage(host: Any) -> Any:
    """The spec that the examples speak of, and no others than the lab's own.

    The accounts that the examples make are gone afterwards: other tests make them too.
    """
    remove_specs_of_tests(host)
    accounts = names_of_accounts(host)
    assert host.shell("credspec new WebApp01 --path ./www.json").returncode == 0
    yield host
    remove_specs_of_tests(host)
    for name in names_of_accounts(host) - accounts:
        host.lab.samba_tool("service-account", "delete", f"--name={name.removesuffix('$')}")
    assert names_of_accounts(host) == accounts


def names_of_accounts(host: Any) -> set[str]:
    shown = host.lab.samba_tool("service-account", "list")
    return {name for name in shown.split() if name.endswith("$")}


def remove_specs_of_tests(host: Any) -> None:
    for path in host.lab.specs_directory.iterdir():
        if path.name not in {"WebApp01.json", "WebApp02.json", "WebApp03.json"}:
            path.unlink()


def is_service(line: str) -> bool:
    return any(line == name or line.startswith(f"{name} --") for name in SERVICES)


@pytest.mark.timeout(1200)  # about forty commands, each of which starts Python
def test_every_example(stage: Any) -> None:
    lines = all_examples()
    assert len(lines) > 25
    assert LAST in lines
    failures = []
    for line in lines:
        if line == LAST:
            continue
        typed = line
        if line.startswith("credspec check") and "--explain" not in line:
            typed = f"{line} --docker-socket={stage.engine.socket}"
        if line.startswith("credspec setup agent docker"):
            typed = f"{line} --dry-run"  # it is for the whole host, and has tests of its own
        typed = typed.partition(" | kubectl ")[0]
        # The specs' directory, the present one, is cleared afterwards.
        typed = typed.replace("--path /root/", "--path ./")
        if is_service(line):
            typed = f"{line.split(' --config')[0].split(' --listen')[0]}"
        shown = stage.shell(typed, under=AS_FIRST_PROCESS if "credspec run " in typed else ())
        if is_service(line):
            expected = shown.returncode == 2 and "another" in shown.stderr
        elif line.startswith(tuple(REFUSED)):
            expected = any(code in shown.stderr for code in REFUSED.values())
        elif line.startswith(OF_CLUSTER):
            expected = shown.returncode == 4 and "[kubectl-" in shown.stdout
        else:
            expected = shown.returncode == 0
        if not expected:
            failures.append((typed, shown.returncode, shown.stderr[-400:]))
        assert "Traceback" not in shown.stderr
    assert failures == []
