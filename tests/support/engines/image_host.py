"""A host of the lab's domain whose agent and gateway are containers, as docs/images.md says."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from credspec.api_client import AgentClient
from credspec.errors import CredspecError
from credspec.lab.docker_engine import DockerEngine
from credspec.lab.domain import Lab
from credspec.lab.provisioning import HOST_ACCOUNT

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/images.md"
_HEALTHY_SECONDS = 120.0
_CAP_SYS_RESOURCE = 24


def documented(heading: str) -> list[str]:
    """Return the blocks of commands below a heading of the page, each as a text for a shell."""
    section = PAGE.read_text().split(f"\n## {heading}\n", 1)[1].split("\n## ")[0]
    blocks = re.findall(r"(?:^    .*\n)+", section, re.MULTILINE)
    return [re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in blocks]


def may_raise_limits() -> bool:
    """Return whether dockerd can give its containers more than its own limits here."""
    status = Path("/proc/self/status").read_text()
    effective = re.search(r"^CapEff:\s+(\S+)$", status, re.MULTILINE)
    assert effective is not None
    return bool(int(effective[1], 16) & 1 << _CAP_SYS_RESOURCE)


class ImageHost:
    """The documented commands, with this host's directories in place of a real host's."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.engine = DockerEngine(lab.network.namespace)
        self.directory = Path(tempfile.mkdtemp(prefix="credspec-images-", dir="/var/tmp"))
        self.etc = self.directory / "etc-credspec"
        self.set_up_etc = self.directory / "set-up"
        self.libexec = self.directory / "libexec"
        self.gateway_directory = self.directory / "gateway"
        self.keytab = self.directory / "krb5.keytab"
        self.audit_log = self.directory / "log/audit.jsonl"
        self.agent = AgentClient(lab.run_directory / "agent.sock")

    def prepare(self) -> None:
        """Make the directories that the page says to make, and start dockerd."""
        (self.etc / "specs").mkdir(parents=True)
        self.audit_log.parent.mkdir(mode=0o750)
        self.libexec.mkdir()
        self.gateway_directory.mkdir()
        os.chown(self.gateway_directory, 65532, 65532)
        self.directory.chmod(0o755)
        # The lab's host is not this machine, whose name the agent would see.
        self.etc.joinpath("config.toml").write_text(
            f'[host_identity]\nprincipal = "{HOST_ACCOUNT}@{self.lab.realm}"\n'
        )
        # Here /run/credspec is elsewhere, so the runtime must be told.
        self.set_up_etc.mkdir()
        self.set_up_etc.joinpath("config.toml").write_text(
            f'run_directory = "{self.lab.run_directory}"\nwait_seconds = 60\n'
        )
        shutil.copy(self.lab.host_keytab, self.keytab)
        self.engine.start()

    def set_up(self) -> None:
        """Set the runtime up from the agent's image, as the page says."""
        done = self.run(self._with_own_paths(documented("Prepare the host")[-1]))
        assert done.returncode == 0, done.stderr
        self.reload()

    def undo(self) -> subprocess.CompletedProcess[str]:
        """Remove all, as the page says."""
        lines = documented("Remove")[0].splitlines(keepends=True)
        done = self.run(self._with_own_paths("".join(lines[:-1])))  # without the directories
        self.reload()
        return done

    def _with_own_paths(self, commands: str) -> str:
        own, there = self.libexec, "/usr/local/libexec"
        for path, here in (
            (f"src={there},dst={there}", f"src={own},dst={own}"),
            ("src=/etc/docker,", f"src={self.engine.directory},"),
            ("src=/etc/credspec,", f"src={self.set_up_etc},"),
            ("setup docker ", f"setup docker --launcher-directory {own}/credspec "),
            ("systemctl reload docker", "true"),
            ("unix:///run/credspec-gateway/", f"unix://{self.gateway_directory}/"),
        ):
            assert path in commands or "unix" in path, path
            commands = commands.replace(path, here)
        return commands

    def reload(self) -> None:
        """Let dockerd read its configuration again."""
        pid = int((self.engine.directory / "pid").read_text())
        os.kill(pid, signal.SIGHUP)
        time.sleep(2)

    def run(self, commands: str, *, gateway: bool = False) -> subprocess.CompletedProcess[str]:
        """Run commands of the page; with `gateway`, in the docker context credspec."""
        sources = {
            "/run/credspec": self.lab.run_directory,
            "/run/credspec-gateway": self.gateway_directory,
            "/var/run/docker.sock": self.engine.socket,
            "/etc/krb5.keytab": self.keytab,
            "/etc/credspec": self.etc,
            "/var/log/credspec": self.audit_log.parent,
        }
        for path, here in sources.items():
            commands = commands.replace(f"src={path},", f"src={here},")
        commands = commands.replace("/run/docker/runtime-runc", str(self.runtime_states))
        commands = commands.replace("%g /var/run/docker.sock", f"%g {self.engine.socket}")
        if not may_raise_limits():
            commands = commands.replace(" --ulimit memlock=-1", "")
        own = {"DOCKER_HOST": f"unix://{self.engine.socket}"}
        return subprocess.run(
            ["bash", "-euc", commands],
            env=self.engine.environment | ({"DOCKER_CONTEXT": "credspec"} if gateway else own),
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )

    @property
    def runtime_states(self) -> Path:
        """Where the runtime keeps a directory for each container."""
        return self.engine.directory / "exec/runtime-runc"

    def start(self, service: str) -> None:
        """Start the agent or the gateway as documented, and wait until it is healthy."""
        done = self.run(documented(f"Start the {service}")[0])
        assert done.returncode == 0, done.stderr
        self.wait_until_healthy(f"credspec-{service}")

    def wait_until_healthy(self, container: str) -> None:
        end = time.monotonic() + _HEALTHY_SECONDS
        while (state := self.state(container))["Health"]["Status"] != "healthy":
            assert time.monotonic() < end, [state, self.logs(container)]
            time.sleep(0.5)

    def state(self, container: str) -> dict[str, Any]:
        found = json.loads(self.engine.docker("inspect", container).stdout)
        state: dict[str, Any] = found[0]["State"]
        return state

    def logs(self, container: str) -> str:
        found = self.engine.docker("logs", container, check=False)
        return (found.stdout + found.stderr).decode()

    def leases(self) -> list[str]:
        try:
            return [lease["container"] for lease in self.agent.get("/v1/leases")["leases"]]
        except CredspecError as error:
            return [str(error)]

    def close(self) -> None:
        self.engine.stop()
        shutil.rmtree(self.directory)
