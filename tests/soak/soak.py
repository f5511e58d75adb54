"""An agent for an hour (or `--seconds`) while controllers and the agent itself fail at random.

Run by ``make soak``. Two real controllers of a domain of its own; tickets live ten minutes, so
that each is replaced many times. Each second all tickets of all leases are read as a program in
the container would; each minute a line is printed. Two unprivileged users, of whom the policy names
one, abuse the agent's sockets meanwhile, also that of credentials-fetcher's interface. One lease
has the broker all the time, which a program asks with the decoy of its start. Ends with 1 if
anything was lost, or the broker had no ticket for it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pwd
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import krb5

from credspec.cli.new import NewSpecRequest, make_credential_spec
from credspec.contract.kdc_sockets import serve_kdc
from credspec.errors import CredspecError
from credspec.lab import provisioning
from credspec.lab.domain import Lab
from credspec.lab.namespaces import bind
from credspec.lab.provisioning import READABLE
from credspec.lab.second_controller import SecondController, up_second_controller
from support.abuse.abusers import Abuse, Abusers
from support.agent.agent_process import AgentProcess, as_user
from support.credentials_fetcher.fetcher_agent import FetcherAgent
from support.domain.controllers import Controllers
from support.machine.mount_namespaces import own_mount_namespace

TICKET_SECONDS = 600
MOST_LEASES = 40
# No controller at all for at most so long: less than from the last refresh to a quarter left.
LONGEST_OUTAGE_SECONDS = 60
ABUSERS = ("nobody", "games")  # the policy names the first one


@dataclass(slots=True)
class Sum:
    """What happened so far."""

    events: Counter[str] = field(default_factory=Counter)
    made: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    released: int = 0
    read: int = 0
    replaced: int = 0
    truncated: int = 0
    lost: int = 0
    given: int = 0
    not_given: int = 0
    least_left: float = 1.0


class Failures(threading.Thread):
    """Stops and restarts controllers until it is to stop."""

    def __init__(
        self, lab: Lab, second: SecondController, chance: random.Random, total: Sum
    ) -> None:
        super().__init__(daemon=True)
        self.ended = threading.Event()
        self._controllers = Controllers(lab, second)
        self._second = second
        self._chance = chance
        self._total = total

    def run(self) -> None:
        kinds = ["one stopped", "one paused", "both stopped", "both paused", "second cut off"]
        while not self.ended.wait(self._chance.uniform(5, 40)):
            kind = self._chance.choices(kinds, (5, 5, 1, 1, 2))[0]
            hosts = list(self._controllers.hosts)
            if kind.startswith("one"):
                hosts = [self._chance.choice(hosts)]
            self._total.events[kind] += 1
            undo = []
            for host in hosts:
                if kind.endswith("stopped"):
                    self._controllers.stop(host)
                    undo.append(partial(self._controllers.start, host))
                elif kind.endswith("paused"):
                    self._controllers.pause(host)
                    undo.append(partial(self._controllers.resume, host))
            if kind == "second cut off":
                self._second.cut_off()
                undo.append(self._second.reconnect)
            self.ended.wait(self._chance.uniform(2, LONGEST_OUTAGE_SECONDS / 2))
            for each in undo:
                each()


class Brokered(threading.Thread):
    """A lease with the broker, and a program that has it give a ticket every few seconds.

    From the first one on the agent holds one for longer than controllers fail.
    """

    NUMBER = 10**9

    def __init__(self, agent: AgentProcess, service: str, total: Sum) -> None:
        super().__init__(daemon=True)
        self.ended = threading.Event()
        self.asking = threading.Lock()
        self._agent, self._service, self._total = agent, service, total
        self._is_held = False
        agent.mount(self.NUMBER)
        agent.put(self.NUMBER, f"file://{READABLE[0]}.json", tickets="broker")
        self.serve()
        self._decoy = (agent.lease_directory(self.NUMBER) / "krb5cc").read_bytes()

    def serve(self) -> None:
        """Open the sockets, also after an agent whose sockets nobody kept."""
        self._is_held = False
        serve_kdc(f"{self.NUMBER:032x}", str(self._agent.run_directory / "agent.sock"), None)

    def run(self) -> None:
        copy = self._agent.directory / "program"
        environment = {
            "KRB5CCNAME": str(copy),
            "KRB5_CONFIG": str(self._agent.lease_directory(self.NUMBER) / "krb5.conf"),
            "PATH": "/usr/bin",
        }
        while not self.ended.wait(3):
            copy.write_bytes(self._decoy)
            with self.asking:
                shown = subprocess.run(
                    ["kvno", self._service],
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=False,
                )
            if shown.returncode == 0:
                self._is_held = True
                self._total.given += 1
            elif self._is_held:
                self._total.not_given += 1
                print(shown.stderr, flush=True)


class Soak:
    """Leases that come and go, each looked at every second."""

    def __init__(self, agent: AgentProcess, chance: random.Random, total: Sum) -> None:
        self.agent = agent
        self.held: dict[int, str] = {}
        self._chance = chance
        self._total = total
        self._numbers = iter(range(1, sys.maxsize))
        self._ends: dict[int, int] = {}
        self.brokered: Brokered | None = None

    def come_and_go(self) -> None:
        if len(self.held) < MOST_LEASES and self._chance.random() < 0.5:
            self._make()
        elif self.held and self._chance.random() < 0.3:
            self._release(self._chance.choice(list(self.held)))

    def _make(self) -> None:
        number, account = next(self._numbers), self._chance.choice(READABLE)
        self.agent.mount(number)
        try:
            self.agent.put(number, f"file://{account}.json")
        except CredspecError as error:
            self._total.refused[error.code] += 1
            self.agent.unmount(number)
        else:
            self._total.made += 1
            self.held[number] = account

    def _release(self, number: int) -> None:
        self.agent.delete(number)
        del self.held[number]
        self._ends.pop(number, None)
        self.agent.unmount(number)
        self._total.released += 1

    def look(self) -> None:
        """Read every ticket as a program in the container does."""
        for number, account in self.held.items():
            start, end = self._ticket(number, account)
            self._total.read += 1
            self._total.replaced += self._ends.get(number, end) != end
            self._ends[number] = end
            left = (end - time.time()) / (end - start)
            self._total.least_left = min(left, self._total.least_left)

    def _ticket(self, number: int, account: str) -> tuple[int, int]:
        context = krb5.init_context()
        path = self.agent.lease_directory(number) / "krb5cc"
        try:
            cache = krb5.cc_resolve(context, f"FILE:{path}".encode())
            assert cache.principal is not None
            assert cache.principal.name.startswith(f"{account}$@".encode())
            # To the end: an iteration that is left keeps the file open.
            (times,) = [credentials.times for credentials in cache]
        except krb5.Krb5Error:
            self._total.truncated += 1
            raise
        return times.starttime or times.authtime, times.endtime

    def kill_agent(self) -> None:
        """As ``kill -9``; the next one must know every lease."""
        with self.brokered.asking if self.brokered is not None else contextlib.nullcontext():
            self.agent.end(signal.SIGKILL)
            self._total.events["agent killed"] += 1
            time.sleep(self._chance.uniform(0, 5))
            self.agent.start()
            if self.brokered is not None:
                self.brokered.serve()
        self.compare()

    def compare(self) -> None:
        """Compare the agent's leases with those that were made and not released."""
        known = [*self.held, *([] if self.brokered is None else [Brokered.NUMBER])]
        wanted = sorted(f"container{number}" for number in known)
        leases = self.agent.client.get("/v1/leases")["leases"]
        hosts = sorted(lease["container"] for lease in leases if lease["user"] is None)
        self._total.lost += wanted != hosts
        directories = {path.name for path in (self.agent.run_directory / "leases").iterdir()}
        self._total.lost += directories != {f"{number:032x}" for number in known}

    def size(self) -> tuple[int, int, int]:
        """Return the agent's memory in MiB, its open files and its threads."""
        assert self.agent.process is not None
        proc = Path(f"/proc/{self.agent.process.pid}")
        resident = int((proc / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return (
            resident >> 20,
            len(list((proc / "fd").iterdir())),
            len(list((proc / "task").iterdir())),
        )


@contextlib.contextmanager
def abused(agent: FetcherAgent, seed: int) -> Iterator[Abusers]:
    """Let users abuse the agent's sockets while the block runs."""
    listed = pwd.getpwnam(ABUSERS[0])
    runtime_directory = Path("/run/user", str(listed.pw_uid))
    runtime_directory.mkdir(parents=True, exist_ok=True)
    owner = f"uid={listed.pw_uid},gid={listed.pw_gid},mode=0700,size=64m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", owner, "run", runtime_directory], check=True)
    sockets = {
        "support.abuse.abusers:HttpAbuser": str(agent.run_directory / "agent.sock"),
        "support.abuse.fetcher:FetcherAbuser": str(agent.socket),
    }
    abuses = [
        Abuse(name, abuser, socket, runtime_directory)
        for name in ABUSERS
        for abuser, socket in sockets.items()
    ]
    abusers = Abusers(abuses, as_user, agent.directory / "abusers.log", seed)
    try:
        with abusers.running():
            yield abusers
    finally:
        subprocess.run(["umount", "-l", runtime_directory], check=True)
        runtime_directory.rmdir()


def run(seconds: float, seed: int) -> bool:
    """Run it and print; return whether nothing was lost."""
    print(f"{seconds:.0f} s, seed {seed}, tickets of {TICKET_SECONDS} s", flush=True)
    chance = random.Random(seed)
    total = Sum()
    directory = Path(tempfile.mkdtemp(prefix="soak", dir="/var/tmp"))
    own_mount_namespace()
    lab = provisioning.up("soak")
    soak: Soak | None = None
    try:
        for name in ("resolv.conf", "hosts"):
            bind(lab.directory / name, Path("/etc", name).resolve())
        short = directory / "krb5.conf"
        short.write_text(f"[libdefaults]\n ticket_lifetime = {TICKET_SECONDS}s\n")
        os.environ |= lab.environment
        os.environ |= {"KRB5CCNAME": "MEMORY:soak", "KRB5_CONFIG": f"{short}:{lab.krb5_conf}"}
        second = up_second_controller(lab)
        second.replicate()
        directory.chmod(0o755)  # users must reach the socket
        users = f'users = ["{ABUSERS[0]}"]\n'
        agent = FetcherAgent(lab, directory, extra=f"{users}[policy]\n{users}")
        for account in READABLE:
            path = directory / "specs" / f"{account}.json"
            make_credential_spec(NewSpecRequest(account_name=account, path=str(path)))
        agent.start()
        soak = Soak(agent, chance, total)
        soak.brokered = Brokered(agent, f"ldap/{lab.dc_host}", total)
        soak.brokered.start()
        failures = Failures(lab, second, random.Random(seed + 1), total)
        failures.start()
        with abused(agent, seed + 2) as abusers:
            _go_on(soak, chance, total, seconds)
        total.events["abuser killed"] = abusers.killed
        failures.ended.set()
        failures.join(120)
        soak.brokered.ended.set()
        soak.brokered.join(120)
        soak.compare()
    finally:
        if soak is not None:
            soak.agent.close()
        lab.down()
        shutil.rmtree(directory)
    print(f"events: {dict(total.events)}")
    print(f"leases: {total.made} made, {total.released} released, refused {dict(total.refused)}")
    print(f"tickets: {total.read} read, {total.replaced} seen replaced, least left "
          f"{total.least_left:.2f} of the lifetime, {total.truncated} truncated")  # fmt: skip
    print(f"broker: {total.given} tickets given, {total.not_given} times none")
    print(f"comparisons that found something lost or left over: {total.lost}", flush=True)
    return total.lost == total.truncated == total.not_given == 0 and total.least_left > 0.25


def _go_on(soak: Soak, chance: random.Random, total: Sum, seconds: float) -> None:
    begin = time.monotonic()
    printed = begin
    kill_at = begin + chance.uniform(60, 400)
    while (now := time.monotonic()) < begin + seconds:
        soak.come_and_go()
        soak.look()
        if now >= kill_at:
            soak.kill_agent()
            kill_at = now + chance.uniform(60, 400)
        if now >= printed + 60:
            printed = now
            memory, files, threads = soak.size()
            print(
                f"{(now - begin) / 60:5.1f} min: {len(soak.held)} leases, {total.replaced} tickets "
                f"replaced, least left {total.least_left:.2f}, {total.refused.total()} refused, "
                f"{memory} MiB, {files} files, {threads} threads, {dict(total.events)}",
                flush=True,
            )
        time.sleep(max(0.0, now + 1 - time.monotonic()))


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    arguments = parser.parse_args()
    # Ctrl-C and SIGTERM end it with nothing left.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(0 if run(arguments.seconds, arguments.seed) else 1)


if __name__ == "__main__":
    main()
