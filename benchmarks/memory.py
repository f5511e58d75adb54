"""What agent and CSI driver keep in memory, and how long the agent takes to its first answer.

The alternative is a bare Python with an event loop, under the allocator of the agent.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from credspec.kubernetes.api.server import ApiServer
from credspec.lab import provisioning
from credspec.lab.domain import Lab
from credspec.service.process_safety import OVERWRITING_ALLOCATOR
from leases import MIB, ManyLeases
from measure import Sample, figure, row
from support.kubernetes.driver_process import DriverProcess

TIMES = 10
SETTLED_SECONDS = 5.0
"""After a start the agent looks at its domain within two seconds."""
ONE_LEASE, TOGETHER, START = 60, 120, 400
BARE = "import asyncio, sys; print(flush=True); sys.stdin.read()"


def resident(pid: int) -> float:
    """Return how much of a process is in memory, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:"))) * 1024 / MIB


def bare() -> float:
    """Return what a Python that does nothing has in memory."""
    with subprocess.Popen(
        [sys.executable, "-c", BARE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | OVERWRITING_ALLOCATOR,
    ) as process:
        assert process.stdout is not None  # noqa: S101 - for the type
        process.stdout.readline()
        found = resident(process.pid)
        process.communicate()
    return found


def driver(lab: Lab) -> float:
    """Return what an idle driver has in memory; it asks its API server nothing."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        token = directory / "token"
        token.write_text("none")
        server = ApiServer("https://127.0.0.1:1", lab.directory / "ca.pem", token)
        process = DriverProcess(directory / "kubelet", server, lab.config_path)
        process.start()
        try:
            time.sleep(SETTLED_SECONDS)
            assert process.process is not None  # noqa: S101 - for the type
            return resident(process.process.pid)
        finally:
            process.stop()


def measure(lab: Lab) -> None:
    """Print the rows."""
    spec = ["new", "WebApp01", "--path", str(lab.specs_directory / "WebApp01.json")]
    credspec = str(Path(sys.executable).parent / "credspec")
    subprocess.run(lab.exec_argv([credspec, *spec]), check=True, capture_output=True)
    leases = ManyLeases(lab)
    try:
        started(leases)
        leases.start()
        time.sleep(SETTLED_SECONDS)
        floor, none = bare(), leases.status("VmRSS") / MIB
        show("agent without a lease: memory", none, floor, None)
        leases.mount(1)
        leases.put(0, ["WebApp01"])
        time.sleep(SETTLED_SECONDS)
        show("agent with one lease: memory", leases.status("VmRSS") / MIB, floor, ONE_LEASE)
        leases.release([0])
        of_driver = driver(lab)
        show("CSI driver without a pod: memory", of_driver, floor, None)
        show("agent and driver of an idle node: memory", none + of_driver, floor, TOGETHER)
    finally:
        leases.close()


def show(what: str, found: float, floor: float, most: int | None) -> None:
    """Print a row of memory."""
    target = "" if most is None else f"<= {most} MiB"
    note = f"{found / floor:.1f} x Python with an event loop"
    figure(what, f"{found:.0f} MiB", note, target, met=most is None or found <= most)


def started(leases: ManyLeases) -> None:
    """Print what a start takes until requests are answered; `/readyz` waits for the domain, too.

    What the lab's wrapper takes, which becomes the agent, is measured beside each and taken off.
    """
    starts, others = [], []
    for _ in range(TIMES):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        others.append((time.perf_counter() - began) * 1000)
        began = time.perf_counter()
        subprocess.run(leases.lab.exec_argv(["true"]), check=True)
        wrapper = (time.perf_counter() - began) * 1000
        starts.append(leases.start() - wrapper)
        leases.stop()
    sample, against = Sample("start", tuple(starts)), Sample("python -c pass", tuple(others))
    met = sample.median <= START
    row("agent's start to its first answer", sample, against, f"<= {START} ms", met=met)


if __name__ == "__main__":
    lab_of_its_own = provisioning.up("benchmem")
    try:
        measure(lab_of_its_own)
    finally:
        lab_of_its_own.down()
