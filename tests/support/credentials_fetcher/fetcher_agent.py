"""An agent that serves credentials-fetcher's interface too, with a lease tree of the test's."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

from credspec.lab.domain import Lab
from support.agent.agent_process import AgentProcess
from support.credentials_fetcher.peer_client import PeerClient


class FetcherAgent(AgentProcess):
    """The agent, the tmpfs for its tree, and a client."""

    def __init__(self, lab: Lab, directory: Path, *, extra: str = "") -> None:
        self.tree = directory / "krbdir"
        self.socket = directory / "cf.sock"
        table = f'[credentials_fetcher]\nlease_tree = "{self.tree}"\n'
        super().__init__(lab, directory, extra=f"{table}{extra}")
        self.options = ("--grpc-compat", str(self.socket))
        self.tree.mkdir()
        options = "mode=0755,size=16m,nosuid,nodev,noexec"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tree", str(self.tree)], check=True)
        self.peer = PeerClient(self.socket)
        self.spec = (directory / "specs/one.json").read_text()

    def start(self, *, crash_at: int | None = None, **environment: str) -> None:
        """Start it and wait until this interface, too, has taken its leases over."""
        before = self._times_ready()
        super().start(crash_at=crash_at, **environment)
        while self._times_ready() == before:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)

    def _times_ready(self) -> int:
        return self.log.read_text().count("grpc-ready") if self.log.exists() else 0

    def document(self, account: str) -> str:
        """A spec of another account."""
        return self.spec.replace("WebApp01", account)

    def files(self) -> set[str]:
        """All files of the tree, by their paths in it."""
        return {str(p.relative_to(self.tree)) for p in self.tree.rglob("*") if not p.is_dir()}

    def metadata(self, lease: str) -> list[dict[str, str]]:
        path = self.tree / lease / f"{lease}_metadata.json"
        return json.loads(path.read_text())["krb_ticket_info"]

    def nothing_is_left(self) -> bool:
        """Whether there is no lease, no record, no directory of any."""
        journal = list((self.run_directory / "journal").iterdir())
        return not (self.lease_containers() or journal or list(self.tree.iterdir()))

    def close(self) -> None:
        self.peer.close()
        super().close()
        subprocess.run(["umount", "-l", str(self.tree)], check=True)
