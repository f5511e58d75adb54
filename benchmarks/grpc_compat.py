"""Leases by credentials-fetcher's interface, beside the same ones by the agent's own API."""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from credspec.api_client import AgentClient
from credspec.config.host import load_config
from credspec.lab.domain import Lab
from measure import figure, interleaved, row
from support.credentials_fetcher.peer_client import PeerClient

RUNS = 100
TOGETHER = 4
LEASES = 400


class BothWays:
    """An agent that serves both, with one account that is held."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._tree = lab.directory / "krbdir"
        self._tree.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "t", self._tree], check=True)
        path = lab.directory / "grpc.toml"
        table = f'\n[credentials_fetcher]\nlease_tree = "{self._tree}"\n'
        path.write_text(lab.config_path.read_text() + table)
        self._config = load_config(path)
        self._api = AgentClient(self._config.agent_socket)
        socket = lab.directory / "cf.sock"
        credspec = str(Path(sys.executable).parent / "credspec")
        command = ["agent", "--config", str(path), "--grpc-compat", str(socket)]
        with (lab.directory / "grpc.log").open("wb") as log:
            self._process = subprocess.Popen(
                lab.exec_argv([credspec, *command]), stdout=log, stderr=log
            )
        while not socket.exists():
            time.sleep(0.01)
        self._peer = PeerClient(socket)
        spec = lab.specs_directory / "compat.json"
        made = lab.exec_argv([credspec, "new", "WebApp01", "--path", str(spec)])
        subprocess.run(made, check=True, capture_output=True)
        self._spec = spec.read_text()
        self._mounts: list[Path] = []
        self.by_grpc()

    def by_grpc(self) -> None:
        """Make a lease and end it, as the ECS agent does."""
        made = self._peer.call("AddKerberosLease", credspec_contents=[self._spec])
        self._peer.call("DeleteKerberosLease", lease_id=made.lease_id)

    def by_api(self) -> Callable[[], None]:
        """Return what does the same by the agent's API, in a directory that is mounted already."""
        lease = secrets.token_hex(16)
        directory = self._config.leases_directory / lease
        directory.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "t", directory], check=True)
        self._mounts.append(directory)
        body = {"spec": "file://compat.json", "container": lease, "uid": 0, "gid": 0}
        body["runtime_state"] = str(self._lab.directory)

        def run() -> None:
            self._api.request("PUT", f"/v1/leases/{lease}", body)
            self._api.request("DELETE", f"/v1/leases/{lease}")

        return run

    def close(self) -> None:
        """End the agent, and unmount everything."""
        self._peer.close()
        self._process.terminate()
        self._process.wait()
        for directory in [*self._mounts, self._tree]:
            subprocess.run(["umount", "-l", str(directory)], check=True)


def a_second(life: Callable[[int], object]) -> float:
    """Return how many leases a second some callers at once get."""
    started = time.perf_counter()
    with ThreadPoolExecutor(TOGETHER) as pool:
        list(pool.map(life, range(LEASES)))
    return LEASES / (time.perf_counter() - started)


def measure(lab: Lab) -> None:
    """Print the rows."""
    both = BothWays(lab)
    try:
        apis = [both.by_api() for _ in range(TOGETHER)]
        found = interleaved({"the agent's API": apis[0], "gRPC": both.by_grpc}, RUNS)
        api, grpc = found.values()
        row("a lease and its end, agent's API", api, None, "", met=True)
        row("a lease and its end, gRPC", grpc, api, "", met=True)
        with ThreadPoolExecutor(TOGETHER) as pool:
            started = time.perf_counter()
            list(pool.map(lambda run: [run() for _ in range(LEASES // TOGETHER)], apis))
        by_api = LEASES / (time.perf_counter() - started)
        by_grpc = a_second(lambda _: both.by_grpc())
        note = f"by the agent's API {by_api:.0f}"
        what = f"leases a second, gRPC, {TOGETHER} callers at once"
        figure(what, f"{by_grpc:.0f}", note, ">= 4.3", met=by_grpc >= 4.3)
    finally:
        both.close()


if __name__ == "__main__":
    from credspec.lab import provisioning

    lab_of_its_own = provisioning.up("bench-grpc")
    try:
        measure(lab_of_its_own)
    finally:
        lab_of_its_own.down()
