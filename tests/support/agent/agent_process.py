"""An agent as a process of its own, in a run directory of the test's, against the lab's domain."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from credspec.api_client import AgentClient
from credspec.cli.new import NewSpecRequest, make_credential_spec
from credspec.errors import AgentUnreachableError
from credspec.lab.domain import Lab
from credspec.lab.namespaces import Plan, command_in
from support.agent.fork_server import ForkedProcess, fork_server

BIN = Path(sys.executable).parent
AT_PROGRAM_START = ("LD_", "PYTHON", "GLIBC_")  # variables that count only then

# Kills the agent just before its `at`th effect on a file, counted from the signal that arms it.
CRASHING = """
import os, signal, sys
seen = None
def arm(*_):
    global seen
    seen = 0
def hook(event, args):
    global seen
    if seen is None:
        return
    if event == "open":
        path, _, flags = args
        if not isinstance(path, str) or not (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
    elif event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chown", "os.chmod"):
        path = str(args[0])
    else:
        return
    if path.startswith("/") and not path.startswith((root, log)):
        return
    seen += 1
    if seen == at:
        print("CRASH", event, path, file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
signal.signal(signal.SIGUSR1, arm)
sys.addaudithook(hook)
"""


def as_user(name: str, command: list[str]) -> list[str]:
    """Return a command as an unprivileged user runs it, who may read this installation, if no more.

    The interpreter may be in a directory that others than root cannot enter.
    """
    entry = pwd.getpwnam(name)
    options = [f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]
    options += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return ["setpriv", *options, *command]


def open_to_users(directory: Path) -> None:
    """Let other users read a directory of pytest's, and those above it that pytest has made.

    There is one more of them in a worker of pytest-xdist.
    """
    for path in (directory, *directory.parents):
        if path == Path(tempfile.gettempdir()):
            return
        path.chmod(0o755)
    raise AssertionError(f"{directory} is not one of pytest's")


class AgentProcess:
    """An agent with its own sockets, journal, leases, specs and audit log below `directory`."""

    def __init__(
        self, lab: Lab, directory: Path, *, extra: str = "", plan: Plan | None = None
    ) -> None:
        self.lab = lab
        self.plan = plan
        self.directory = directory
        self.run_directory = directory / "run"
        self.audit_log = directory / "audit.jsonl"
        self.log = directory / "agent.log"
        self.config = directory / "config.toml"
        self.client = AgentClient(self.run_directory / "agent.sock")
        self.process: subprocess.Popen[bytes] | ForkedProcess | None = None
        self.is_forked = True  # not where its time or memory is measured
        self.options: tuple[str, ...] = ()
        self.prelude = ""  # Python that runs in the agent's process first
        self._mounted: list[Path] = []
        (directory / "specs").mkdir()
        self.config.write_text(
            f'run_directory = "{self.run_directory}"\n'
            f'spec_directory = "{directory}/specs"\n'
            f'audit_log = "{self.audit_log}"\n'
            f'[host_identity]\nkeytab = "{lab.host_keytab}"\n{extra}'
        )
        make_credential_spec(
            NewSpecRequest(account_name="WebApp01", path=str(directory / "specs/one.json"))
        )

    def start(self, *, crash_at: int | None = None, **environment: str) -> None:
        """Start it and wait until it answers; with `crash_at` it will kill itself when armed."""
        arguments = ["agent", "--config", str(self.config), *self.options]
        crashing = "" if crash_at is None else self._crashing(crash_at)
        is_new_program = not self.is_forked or bool(self.prelude) or self.plan is not None
        is_new_program |= any(name.startswith(AT_PROGRAM_START) for name in environment)
        environment = {**os.environ, **environment}
        with self.log.open("ab") as log:
            if is_new_program:
                first = f"{self.prelude}\n{crashing}\nfrom credspec.cli.start import main; main()"
                command = [str(BIN / "credspec"), *arguments]
                if self.prelude or crashing:
                    command[:1] = [sys.executable, "-c", first]
                if self.plan is not None:
                    command = command_in(self.plan, command)
                self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            else:
                self.process = fork_server().start(arguments, log, environment, first=crashing)
        end = time.monotonic() + 60
        while True:
            try:
                self.client.get("/healthz")
            except AgentUnreachableError:
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < end, self.log.read_text()
                time.sleep(0.02)
            else:
                break

    def _crashing(self, at: int) -> str:
        constants = f"at, root, log = {at}, {str(self.run_directory)!r}, {str(self.audit_log)!r}"
        return f"{constants}\n{CRASHING}"

    def arm(self) -> None:
        """Let the effects be counted from now on that lead to the crash."""
        assert self.process is not None
        self.process.send_signal(signal.SIGUSR1)
        # Whatever it answers next, it answers after the signal.
        self.client.get("/healthz")
        self.client.get("/healthz")

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it, by SIGTERM unless told."""
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(60)
        self.process = None
        return status

    def lease_directory(self, number: int) -> Path:
        return self.run_directory / "leases" / f"{number:032x}"

    def state(self, number: int) -> Path:
        return self.directory / "state" / f"{number:032x}"

    def mount(self, number: int) -> None:
        """Do what the shim does before it asks."""
        directory = self.lease_directory(number)
        directory.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "lease", str(directory)], check=True)
        self._mounted.append(directory)
        self.state(number).mkdir(parents=True, exist_ok=True)

    def unmount(self, number: int) -> None:
        """Do what the shim does at the end, or when it got no lease."""
        directory = self.lease_directory(number)
        subprocess.run(["umount", "-l", str(directory)], check=True)
        self._mounted.remove(directory)
        directory.rmdir()
        self.state(number).rmdir()

    def put(self, number: int, spec: str = "file://one.json", **more: Any) -> Any:
        body = {
            "spec": spec,
            "container": f"container{number}",
            "runtime_state": str(self.state(number)),
            "uid": 1000,
            "gid": 1000,
        }
        return self.client.request("PUT", f"/v1/leases/{number:032x}", body | more)

    def delete(self, number: int) -> None:
        self.client.request("DELETE", f"/v1/leases/{number:032x}")

    def lease_containers(self) -> list[str]:
        return [lease["container"] for lease in self.client.get("/v1/leases")["leases"]]

    def close(self) -> None:
        if self.process is not None:
            self.end(signal.SIGKILL)
        for directory in self._mounted:
            subprocess.run(["umount", "-l", str(directory)], check=True)
