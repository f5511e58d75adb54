"""Machines with a systemd of their own, side by side, as in several workers of the tests."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from support.machine.booted_systemd import BootedSystemd

UNIT = "same.service"


def test_two_machines_share_no_cgroup(tmp_path: Path) -> None:
    """Each would remove those of the other's services, whose next start then fails."""
    with ExitStack() as stack:
        machines = []
        for name in ("one", "two"):
            found = BootedSystemd(tmp_path / name)
            stack.callback(found.close)
            # Of `exec`, as it is in its cgroup only then.
            found.run("systemd-run", f"--unit={UNIT}", "-p", "Type=exec", "sleep", "infinity")
            machines.append(found)
        cgroups = {
            Path(f"/proc/{found.pid_outside(UNIT)}/cgroup").read_text().splitlines()[-1]
            for found in machines
        }
        assert len(cgroups) == len(machines)
        assert all(cgroup.endswith(f"/system.slice/{UNIT}") for cgroup in cgroups)
        one, two = machines
        one.run("systemctl", "stop", UNIT)
        assert two.show(UNIT, "ActiveState") == "active"
