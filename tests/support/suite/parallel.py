"""How pytest-xdist spreads the tests over its workers, each of which has a lab of its own.

A file runs in one worker, since its fixtures start daemons; the longest files come first, so that
no worker is left alone with one at the end.
"""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

# Files that run one after the other, by what they share.
TOGETHER = {
    # Their systemd takes the worker's cgroup for the root of all: two would end each other's
    # services. Some make /var/credentials-fetcher, whose path is credentials-fetcher's own.
    "tests/integration/agent/test_booted_systemd.py": "booted systemd",
    "tests/integration/agent/test_unit_sandbox.py": "booted systemd",
    "tests/integration/cli/test_setup.py": "booted systemd",
    "tests/integration/gateway/test_booted_gateway.py": "booted systemd",
    # One containerd serves both.
    "tests/e2e/containerd/test_cri.py": "containerd",
    "tests/e2e/containerd/test_ctr.py": "containerd",
    # One Apache and one SQL Server serve all.
    "tests/e2e/applications/test_go.py": "applications",
    "tests/e2e/applications/test_http.py": "applications",
    "tests/e2e/applications/test_java.py": "applications",
    "tests/e2e/applications/test_node.py": "applications",
    "tests/e2e/applications/test_sql_server.py": "applications",
}

# Each takes more than half a minute, and one of them started last would keep one worker busy alone.
LONGEST = (
    "tests/integration/agent/test_controller_failure.py",
    "tests/integration/agent/test_crash_points.py",
    "tests/e2e/docker/test_swarm.py",
    "tests/integration/agent/test_booted_systemd.py",
    "tests/integration/agent/test_unit_sandbox.py",
    "tests/integration/cli/test_setup.py",
    "tests/integration/gateway/test_booted_gateway.py",
    "tests/integration/agent/test_held_logons.py",
    "tests/integration/lab/test_second_controller.py",
    "tests/integration/agent/test_rollover.py",
    "tests/integration/agent/test_clock.py",
    "tests/integration/agent/test_moved_controller.py",
    "tests/integration/agent/test_abuse.py",
    "tests/integration/doctor/test_examination.py",
    "tests/integration/agent/doors/test_credentials_fetcher_secrets.py",
    "tests/integration/lab/test_trust.py",
    "tests/integration/cli/test_run.py",
    "tests/unit/providers/test_hostile_servers.py",
    "tests/unit/spec/test_hostile_documents.py",
    "tests/unit/directory/test_hostile_managed_passwords.py",
)


def claimed(lab_name: str) -> socket.socket | None:
    """Return what keeps other runs from a lab of that name until it is closed or this process ends.

    None if another run has it.
    """
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0credspec-test-lab-{lab_name}")
    except OSError:
        claim.close()
        return None
    return claim


def scope_of(nodeid: str) -> str:
    """Return what runs in one worker: a file, or files that share something."""
    file = nodeid.partition("::")[0]
    return TOGETHER.get(file, file)


def longest_first(items: list[pytest.Item]) -> None:
    """Sort tests: the longest files first, the others as they were."""
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.nodeid.partition("::")[0], len(order)))


def worker_number() -> str | None:
    """Return the number of this worker; None if the tests are not spread."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    return worker.removeprefix("gw") or None


def make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Return a scheduler that hands out whole scopes, in the order of the tests."""
    from xdist.scheduler import LoadScopeScheduling

    class FileScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope_of(nodeid)

        def remove_node(self, node: Any) -> str | None:
            """Remove a worker; return the test that it died of, which is not run again."""
            left = (
                (unit, test)
                for unit in self.assigned_work[node].values()
                for test, is_complete in unit.items()
                if not is_complete
            )
            unit, died_of = next(left, ({}, None))
            if died_of is not None:
                unit[died_of] = True
            super().remove_node(node)
            return died_of

    config.option.loadscopereorder = False
    return FileScheduling(config, log)
