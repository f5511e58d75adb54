"""The main job, shown on a throwaway domain: ``make demo``.

Runs the two commands that Windows users know, verbatim, proves the identity to three services, and
takes everything down again. Exit status 0 only if every proof held.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from credspec.api_client import AgentClient
from credspec.config.host import load_config
from credspec.errors import CredspecError
from credspec.lab import provisioning
from credspec.lab.client_image import write_client_image
from credspec.lab.docker_engine import DockerEngine
from credspec.setup.docker import DockerSetup

IMAGE = "kerberos-client"
NEW_SPEC = "New-CredentialSpec -AccountName WebApp01 -Path ./www.json"
RUN = 'docker run --rm --security-opt "credentialspec=file://www.json"'


class DemoFailedError(Exception):
    """A proof did not hold."""


class Demo:
    """The stage: a lab, a dockerd, an agent and a gateway; and the account of what is shown."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        with self.step("a real Active Directory domain (Samba AD DC), a joined host, gMSAs"):
            self.lab = provisioning.up("demo", progress=lambda line: say(f"      {line}"))
            stack.callback(self.lab.down)
        self.config = load_config(self.lab.config_path)
        with self.step("a Docker daemon of its own, with the runtime registered"):
            self.engine = DockerEngine(self.lab.network.namespace)
            stack.callback(self.engine.stop)
            os.environ["DOCKER_CONFIG"] = self.engine.environment["DOCKER_CONFIG"]
            DockerSetup(
                run_directory=self.config.run_directory,
                gateway_socket=self.config.gateway_socket,
                daemon_config=self.engine.daemon_config,
                launcher_directory=self.engine.directory / "libexec",
            ).apply()
            self.engine.start()
            say(f"      {self.engine.version()}")
        with self.step("the host agent and the Docker gateway"):
            self.start("credspec", "agent")
            self.start("credspec", "docker-gateway", "--upstream", str(self.engine.socket))
            for socket in (self.config.agent_socket, self.config.gateway_socket):
                wait_for(socket)
        with self.step("a small image made of this machine's own klist, ldapwhoami and psql"):
            tar = io.BytesIO()
            write_client_image(tar)
            self.engine.import_image(tar.getvalue(), IMAGE)
            self.shell("docker context use credspec")

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Say what is being done, and how long it took."""
        say(f"  ... {title}")
        started = time.monotonic()
        yield
        say(f"      {time.monotonic() - started:.1f} s")

    def start(self, *command: str) -> None:
        """Start a service as on the lab's host; it ends with the demonstration."""
        path = self.lab.directory / f"{command[1]}.log"
        with path.open("ab") as log:
            process = subprocess.Popen(
                self.lab.exec_argv([str(Path(sys.executable).parent / command[0]), *command[1:]]),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

        def stop() -> None:
            process.terminate()
            process.wait(15)

        self._stack.callback(stop)

    def shell(self, line: str, *, proof: str | None = None) -> str:
        """Run a line as a user of the lab's host types it, in the spec directory; show it.

        With `proof`, that text must be in what it prints.
        """
        environment = self.engine.environment
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        started = time.monotonic()
        result = subprocess.run(
            self.lab.exec_argv(["bash", "-c", line]),
            cwd=self.lab.specs_directory,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        took = (time.monotonic() - started) * 1000
        if proof is None and result.returncode == 0:
            return result.stdout
        say(f"\n$ {line}")
        say("".join(f"  {part}\n" for part in (result.stdout + result.stderr).splitlines()))
        held = result.returncode == 0 and proof is not None and proof in result.stdout
        say(f"  {'ok' if held else 'FAILED'}, {took:.0f} ms")
        if not held:
            raise DemoFailedError(f"expected {proof!r}")
        return result.stdout


def show(demo: Demo) -> None:
    """Show the main job, proof by proof."""
    lab = demo.lab
    dns = f"--dns {lab.dc_address}"
    inside = f"{RUN} {dns} {IMAGE}"
    say("\nThe two commands, as on Windows:")
    demo.shell(NEW_SPEC, proof="www.json")
    demo.shell(f"{RUN} {IMAGE} klist", proof=f"Default principal: WebApp01$@{lab.realm}")
    say("\nWho the domain says the container is:")
    whoami = f"ldapwhoami -Q -H ldap://{lab.dc_host}"
    demo.shell(f"{inside} {whoami}", proof=f"u:{lab.netbios}\\WebApp01$")
    not_root = inside.replace("--rm", "--rm --user 1000:1000")
    demo.shell(f"{not_root} {whoami}", proof=f"u:{lab.netbios}\\WebApp01$")
    say("\nA PostgreSQL session, logged on by Kerberos:")
    query = "select current_user"
    connection = f"host=db.{lab.dns_domain} user=WebApp01$ dbname=demo gssencmode=require"
    demo.shell(f"{inside} psql '{connection}' -Atc '{query}'", proof="WebApp01$")
    say("\nThe same without a ticket-granting ticket: the agent is the container's KDC:")
    labels = "--label credspec.dev/tickets=broker --label credspec.dev/services=postgres/*.{}"
    inside = f"{RUN} {labels.format(lab.dns_domain)} {dns} {IMAGE}"
    demo.shell(f"{inside} psql '{connection}' -Atc '{query}'", proof="WebApp01$")
    refused = f"{inside} sh -c '! kvno cifs/{lab.dc_host} 2>&1'"
    demo.shell(refused, proof="KDC policy rejects request")
    say("\nNor does what is in it open anything at the real KDC:")
    conf = f"[realms]\\n{lab.realm} = {{\\nkdc = {lab.dc_address}\\n}}\\n"
    real = f'printf "{conf}" > /tmp/k; ! KRB5_CONFIG=/tmp/k kvno postgres/db@{lab.realm} 2>&1'
    demo.shell(f"{inside} sh -c '{real}'", proof="Decrypt integrity check failed")
    five_replicas(demo)


def five_replicas(demo: Demo) -> None:
    """Run five containers of another account at once: one password read, one ticket."""
    say("\nFive replicas of WebApp03 at once:")
    demo.shell("New-CredentialSpec -AccountName WebApp03 -Path ./replicas.json", proof="replicas")
    agent = AgentClient(demo.config.agent_socket)
    before = agent.get("/v1/identities")["acquisitions"]
    line = f"{RUN.replace('www', 'replicas')} {IMAGE} klist"
    started = time.monotonic()
    with ThreadPoolExecutor(5) as pool:
        outputs = list(pool.map(lambda _: demo.shell(line), range(5)))
    took = time.monotonic() - started
    reads = agent.get("/v1/identities")["acquisitions"] - before
    held = sum(f"WebApp03$@{demo.lab.realm}" in output for output in outputs)
    say(f"  {held} containers with a ticket, {reads} password read and ticket, {took:.1f} s")
    if (held, reads) != (5, 1):
        raise DemoFailedError("expected 5 containers and 1 password read")
    leases = agent.get("/v1/leases")["leases"]
    say(f"  {len(leases)} leases left after their containers")
    if leases:
        raise DemoFailedError(f"leases left: {json.dumps(leases)}")


def wait_for(path: Path) -> None:
    """Wait until a service has made its socket."""
    end = time.monotonic() + 30
    while not path.exists():
        if time.monotonic() > end:
            raise DemoFailedError(f"{path} does not appear")
        time.sleep(0.05)


def say(line: str) -> None:
    """Tell the spectator."""
    print(line.rstrip("\n"), flush=True)  # noqa: T201 - to print is what a demonstration does


def main() -> int:
    """Run the demonstration; return the exit status."""
    say("credspec: the identity of a Windows gMSA in a Linux container\n\nSetting the stage:")
    started = time.monotonic()
    failure: str | None = None
    with ExitStack() as stack:
        try:
            show(Demo(stack))
        except (DemoFailedError, CredspecError, RuntimeError, OSError) as error:
            failure = str(error)
        except KeyboardInterrupt:
            failure = "interrupted"
        say("\nTaking everything down ...")
    took = time.monotonic() - started
    say(f"\nFAILED: {failure}" if failure else f"\nEvery proof held. {took:.0f} s in all.")
    return 1 if failure else 0


if __name__ == "__main__":
    sys.exit(main())
