"""Many leases on one host: what each costs as they grow, and what they cost together."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

from credspec.api_client import AgentClient
from credspec.config.host import load_config
from credspec.errors import AgentUnreachableError
from credspec.lab.domain import Lab, run_tool
from credspec.service.process_safety import OVERWRITING_ALLOCATOR
from floor import Floor, build
from measure import Sample, figure, row, series

ACCOUNTS = 100
FEW = 10
TOGETHER = 8
FLOORS = 4
TIMES = 5
LEASES = (10, 100, 1000, 10_000)
NEAR = 50  # leases on either side whose cost stands for a number of leases
MIB = 1 << 20
IDLE_SECONDS = 60.0
LOOK_SECONDS = 15.0  # of which the agent waits two, before half a minute without another look
REFRESH_SECONDS = 180
_libc = ctypes.CDLL(None, use_errno=True)


class ManyLeases:
    """A lab with a hundred accounts, an agent of its own, and the leases that are made of it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.config = load_config(lab.config_path)
        self.client = AgentClient(self.config.agent_socket)
        self.accounts = [f"Bench{number:03}" for number in range(ACCOUNTS)]
        self.directories: list[Path] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = 0
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        self._start_time = int(fields[19])  # proc_pid_stat(5), counted from behind the name

    def add_accounts(self) -> None:
        """Add the accounts to the domain, with the readers of WebApp01, and a spec of each."""
        database = str(self.lab.directory / "dc/private/sam.ldb")
        wanted = ["(sAMAccountName=WebApp01$)", "msDS-GroupMSAMembership"]
        found = run_tool(["ldbsearch", "-H", database, *wanted]).replace("\n ", "")
        [readers] = [x for x in found.splitlines() if x.startswith("msDS-GroupMSAMembership:")]
        entries = [
            f"dn: CN={name},CN=Managed Service Accounts,{self.lab.domain_dn}\n"
            "objectClass: msDS-GroupManagedServiceAccount\n"
            f"sAMAccountName: {name}$\ndNSHostName: {name}.{self.lab.dns_domain}\n"
            f"msDS-ManagedPasswordInterval: 30\nuserAccountControl: 4096\n{readers}\n\n"
            for name in self.accounts
        ]
        # With the realm of its configuration, which is in the salt of the keys.
        configured = ["ldbadd", f"--configfile={self.lab.smb_conf}", "-H", database]
        run_tool(configured, "".join(entries))
        credspec = str(Path(sys.executable).parent / "credspec")
        template = self.lab.specs_directory / "Bench.json"
        made = self.lab.exec_argv([credspec, "new", "WebApp01", "--path", str(template)])
        subprocess.run(made, check=True, capture_output=True)
        text = template.read_text()
        for name in self.accounts:
            path = template.with_name(f"{name}.json")
            path.write_text(text.replace("WebApp01", name))

    def start(self, **variables: str) -> float:
        """Start the agent, with more variables; return the milliseconds until it answers."""
        credspec = str(Path(sys.executable).parent / "credspec")
        command = self.lab.exec_argv([credspec, "agent"])
        environment = self._environment(variables)
        with (self.lab.directory / "many-leases.log").open("ab") as log:
            started = time.perf_counter()
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            self._pid = self._process.pid  # each program on the way becomes the next
        while True:
            try:
                self.client.get("/healthz")
            except AgentUnreachableError:
                if self._process.poll() is not None:
                    raise SystemExit("the agent ended") from None
                time.sleep(0.002)
            else:
                return (time.perf_counter() - started) * 1000

    def _environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        # Those of its unit, without which it would start twice.
        return {**os.environ, **OVERWRITING_ALLOCATOR, **variables}

    def wrapper_seconds(self) -> float:
        """Return what of a processor a program takes to start as on the lab's host, copying mounts.

        The agent's process begins as that wrapper, so its time counts what the wrapper took.
        """
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = self.lab.exec_argv(["true"])
        subprocess.run(command, check=True, env=self._environment({}))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def stop(self) -> None:
        """Stop the agent; the leases stay."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait()

    def status(self, field: str) -> int:
        """Return a number of the agent's process, such as ``VmRSS``, in bytes."""
        lines = Path(f"/proc/{self._pid}/status").read_text().splitlines()
        [line] = [line for line in lines if line.startswith(f"{field}:")]
        return int(line.split()[1]) << 10

    def processor_seconds(self) -> float:
        """Return what the agent has used of a processor so far."""
        stat = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    def acquisitions(self) -> int:
        """Return how many passwords the agent has read, each for one ticket."""
        return int(self.client.get("/v1/identities")["acquisitions"])

    def mount(self, number: int) -> None:
        """Do what the shim does before it asks for leases."""
        for made in range(len(self.directories), number):
            directory = self.config.leases_directory / f"{made:032x}"
            directory.mkdir()
            target = bytes(directory)
            if _libc.mount(b"bench", target, b"tmpfs", 0, b"size=1m,nr_inodes=256") != 0:
                raise OSError(ctypes.get_errno(), str(directory))
            self.directories.append(directory)

    def put(self, number: int, accounts: Sequence[str]) -> float:
        """Make a lease; return the milliseconds it took."""
        body = {
            "spec": f"file://{accounts[number % len(accounts)]}.json",
            "container": f"bench{number}",
            "runtime_state": str(self._state(number)),
            "uid": 0,
            "gid": 0,
        }
        started = time.perf_counter()
        self.client.request("PUT", f"/v1/leases/{number:032x}", body)
        return (time.perf_counter() - started) * 1000

    def _state(self, number: int) -> Path:
        """Make what runc keeps of a container whose process is this one."""
        directory = self.lab.directory / "states" / str(number)
        if not directory.exists():
            directory.mkdir(parents=True)
            head = f'{{"id":"{number}","init_process_pid":{os.getpid()},'
            head += f'"init_process_start":{self._start_time},'
            (directory / "state.json").write_text(head + '"config":{}}')
        return directory

    def release(self, numbers: Sequence[int]) -> None:
        """Give leases back."""
        for number in numbers:
            self.client.request("DELETE", f"/v1/leases/{number:032x}")

    def close(self) -> None:
        """End the agent and unmount everything."""
        self.stop()
        for directory in self.directories:
            _libc.umount2(bytes(directory), 2)
            directory.rmdir()


def measure(lab: Lab) -> None:
    """Print the rows."""
    leases = ManyLeases(lab)
    try:
        leases.add_accounts()
        bare = [restarted(leases) for _ in range(5)]
        few_accounts(leases)
        together(leases)
        growing(leases)
        at_rest(leases)
        all_anew(leases)
        taking_over(leases, bare)
    finally:
        leases.close()


def few_accounts(leases: ManyLeases) -> None:
    """Ask for a thousand leases of ten accounts, many at a time."""
    number, accounts = 1000, leases.accounts[:FEW]
    trace = leases.lab.directory / "krb5-trace"
    leases.stop()
    leases.start(KRB5_TRACE=str(trace))
    leases.mount(number)
    with ThreadPoolExecutor(TOGETHER) as pool:
        list(pool.map(lambda index: leases.put(index, accounts), range(number)))
    reads = leases.acquisitions()
    lines = [line for line in trace.read_text().splitlines() if "Getting initial cred" in line]
    of_accounts = sum("Bench" in line for line in lines)
    what = f"{number} leases over {FEW} accounts"
    note = f"{of_accounts} AS exchanges, {len(lines) - of_accounts} for the host"
    met = reads == of_accounts == FEW
    figure(what, f"{reads} reads", note, f"{FEW} of each", met=met)
    leases.release(range(number))
    leases.stop()
    leases.start()


def together(leases: ManyLeases) -> None:
    """Ask for a lease of each of a hundred accounts at once, of an agent that knows none."""
    lab = leases.lab
    program, keytab = lab.directory / "floor", lab.directory / "all.keytab"
    build(program)
    keytab.unlink(missing_ok=True)
    lab.samba_tool("domain", "exportkeytab", str(keytab))
    held = [*lab.exec_argv([str(program), "held"])]
    floors = [Floor(held, leases.config, keytab, lab.realm) for _ in range(FLOORS)]
    shares = [leases.accounts[index::FLOORS] for index in range(FLOORS)]

    def of_floors() -> None:
        with ThreadPoolExecutor(FLOORS) as pool:
            list(pool.map(lambda pair: pair[0].acquire(pair[1]), zip(floors, shares, strict=True)))

    def of_agent() -> None:
        with ThreadPoolExecutor(TOGETHER) as pool:
            list(pool.map(lambda index: leases.put(index, leases.accounts), range(ACCOUNTS)))

    of_floors()  # they bind once
    taken: dict[str, list[float]] = {"floor": [], "agent": []}
    for _ in range(TIMES):
        leases.stop()
        leases.start()
        for name, subject in (("floor", of_floors), ("agent", of_agent)):
            started = time.perf_counter()
            subject()
            taken[name].append((time.perf_counter() - started) * 1000)
        leases.release(range(ACCOUNTS))
    for floor in floors:
        floor.close()
    bottom = Sample(f"{FLOORS} floors at once, bound", tuple(taken["floor"]))
    agent = Sample("agent", tuple(taken["agent"]))
    row(f"{ACCOUNTS} accounts, {FLOORS} floors, bound", bottom, None, "", met=True)
    met = agent.median <= 1.3 * bottom.median
    row(f"{ACCOUNTS} accounts, cold, one host", agent, bottom, "<= 1.3 x", met=met)


def growing(leases: ManyLeases) -> None:
    """Make ever more leases of accounts that are held; print what one costs at each number."""
    taken: list[float] = []
    for number in range(LEASES[-1] + NEAR):
        leases.mount(number + 1)
        taken.append(
            leases.put(number, leases.accounts[:1] if number < ACCOUNTS else leases.accounts)
        )
    # The first of each account is acquired, and tells nothing of this.
    samples = [
        Sample(f"at {number} leases", tuple(taken[max(1, number - NEAR) : number + NEAR]))
        for number in LEASES
    ]
    for sample in samples:
        ratio = sample.median / samples[0].median
        row(f"a lease more, {sample.name}", sample, samples[0], "<= 1.5 x", met=ratio <= 1.5)
    rate = 1000 / samples[-1].median
    figure("leases a second, one after another", f"{rate:.0f}", "", ">= 500", met=rate >= 500)
    medians = [statistics.median(taken[i : i + 100]) for i in range(200, len(taken) - 100, 100)]
    series("What a lease costs as they grow, by hundreds", "ms", medians)


def at_rest(leases: ManyLeases) -> None:
    """Print what all leases cost while nothing happens."""
    what = f"{len(leases.directories):,} leases, {ACCOUNTS} accounts"
    resident = leases.status("VmRSS") / MIB
    figure(f"{what}: memory", f"{resident:.0f} MiB", "", "<= 90 MiB", met=resident <= 90)
    before = leases.processor_seconds()
    time.sleep(IDLE_SECONDS)
    share = (leases.processor_seconds() - before) / IDLE_SECONDS
    figure(f"{what}: idle", f"{share:.2%}", "of a processor", "<= 1 %", met=share <= 0.01)


def all_anew(leases: ManyLeases) -> None:
    """Let all tickets be due, and see what the domain and others who ask notice of it."""
    leases.stop()
    number = len(leases.directories)
    age_tickets(leases.config.journal_directory)
    leases.start()
    each_second, waits = [leases.acquisitions()], []
    started = time.monotonic()
    while each_second[-1] < ACCOUNTS and len(each_second) < REFRESH_SECONDS:
        while time.monotonic() < started + len(each_second):
            asked = time.perf_counter()
            leases.client.get("/healthz")
            waits.append((time.perf_counter() - asked) * 1000)
            time.sleep(0.05)
        each_second.append(leases.acquisitions())
    asked_for = [after - before for before, after in pairwise(each_second)]
    what = f"refresh of all {number:,} tickets"
    count = each_second[-1]
    note = f"in {len(asked_for)} s, at most {max(asked_for)} in one"
    figure(what, f"{count} reads", note, f"{ACCOUNTS}", met=count == ACCOUNTS)
    others = f"of {len(waits)}; half within {statistics.median(waits):.1f} ms"
    longest = max(waits)
    figure(f"{what}: slowest /healthz", f"{longest:.0f} ms", others, "", met=True)


def age_tickets(journal: Path) -> None:
    """Write down that six minutes are left of an hour's tickets."""
    now = datetime.now(UTC)
    start, end = now - timedelta(minutes=54), now + timedelta(minutes=6)
    for path in journal.glob("*.json"):
        record = json.loads(path.read_text())
        record |= {"ticket_start": start.isoformat(), "ticket_end": end.isoformat()}
        path.write_text(json.dumps(record))


def taking_over(leases: ManyLeases, without: Sequence[tuple[float, float]]) -> None:
    """Start the agent again with all leases there, and with a thousand of them.

    `without` is what its starts without leases took, see `restarted`.
    """
    bare = Sample("its start without leases", tuple(each for each, _ in without))
    bare_seconds = statistics.median(each for _, each in without)
    note = "of a processor, which others' load changes less"
    met = bare_seconds <= 0.4
    what = "agent's start without leases: processor"
    figure(what, f"{bare_seconds:.2f} s", note, "<= 0.40 s", met=met)
    everything = len(leases.directories)
    for number in (everything, 1000):
        leases.release(range(number, everything))
        everything = number
        taken = [restarted(leases) for _ in range(5)]
        sample = Sample(f"{number} leases", tuple(each for each, _ in taken))
        more = sample.median - bare.median
        what = f"agent's start with {number:,} leases"
        row(what, sample, bare, f"{more:+.0f} ms, <= +500 ms", met=more <= 500)
        seconds = statistics.median(each for _, each in taken)
        more = seconds - bare_seconds
        note = f"of a processor, {more:+.2f} s"
        figure(f"{what}: processor", f"{seconds:.2f} s", note, "<= +0.50 s", met=more <= 0.5)
        first_look(leases, number)


def restarted(leases: ManyLeases) -> tuple[float, float]:
    """Return the milliseconds to the next start's first answer, and its seconds of a processor.

    The seconds are those of the agent itself, without the lab's wrapper.
    """
    leases.stop()
    wrapper = leases.wrapper_seconds()
    milliseconds = leases.start()
    return milliseconds, leases.processor_seconds() - wrapper


def first_look(leases: ManyLeases, number: int) -> None:
    """Print what the agent, whose start has just been answered, then spends on its first look."""
    before = leases.processor_seconds()
    time.sleep(LOOK_SECONDS)
    seconds = leases.processor_seconds() - before
    what = f"first look at {number:,} leases after a start"
    figure(f"{what}: processor", f"{seconds:.2f} s", "after the first answer", "", met=True)


if __name__ == "__main__":
    from credspec.lab import provisioning

    lab_of_its_own = provisioning.up("bench-leases")
    try:
        measure(lab_of_its_own)
    finally:
        lab_of_its_own.down()
