"""The agent as the KDC of containers, beside the domain's own KDC and containers with a TGT.

    broker.py

Brings a domain up, with dockerd, agent and gateway, prints the table, takes all down.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from credspec.api_client import AgentClient
from credspec.config.host import Config
from credspec.contract.kdc_sockets import serve_kdc
from credspec.lab import provisioning
from credspec.lab.docker_engine import DockerEngine
from credspec.lab.domain import Lab, run_tool
from measure import Sample, interleaved, row
from run import IMAGE, RUNS, start_host

LEASES = 20
NEW_SERVICES = 200
LEASE_RUNS = 200
CLIENTS = Path(__file__).with_name("broker_clients.py")


def main() -> None:
    """Bring the stage up, print the table, take the stage down."""
    with ExitStack() as stack:
        lab = provisioning.up("bench")
        stack.callback(lab.down)
        engine = DockerEngine(lab.network.namespace)
        stack.callback(engine.stop)
        config = start_host(lab, engine, stack)
        tickets(lab, config)
        containers(engine)


def tickets(lab: Lab, config: Config) -> None:
    """Measure tickets of services, and leases with a TGT beside brokers and without."""
    agent = AgentClient(config.agent_socket)
    services = [f"HTTP/bench{number}.{lab.dns_domain}" for number in range(NEW_SERVICES)]
    add_services(lab, services)
    with leases(config, agent, [0], "tgt") as [tgt], leases(config, agent, [99], "tgt") as [probe]:
        before = granting(agent, probe)
        with leases(config, agent, range(1, LEASES + 1), "broker") as made:
            served = Sample("served", tuple(serving(config, each) for each in made))
            names = [str(tgt), ",".join(map(str, made)), f"ldap/{lab.dc_host}", *services]
            program = [sys.executable, str(CLIENTS), *names]
            subprocess.run(lab.exec_argv(program), check=True)
            beside = granting(agent, probe)
        without = Sample("without brokers", before + granting(agent, probe))
    row("a broker's sockets, opened and served", served, None, "<= 10 ms", met=served.median <= 10)
    sample = Sample("beside", beside)
    met = sample.median <= 1.1 * without.median
    row(f"lease with a TGT, beside {LEASES} brokers", sample, without, "<= 1.1 x", met=met)


def add_services(lab: Lab, names: list[str]) -> None:
    """Give an account of the domain more services."""
    database = str(lab.directory / "dc/private/sam.ldb")
    found = run_tool(["ldbsearch", "-H", database, "(sAMAccountName=DBHOST$)", "dn"])
    [name] = [line for line in found.splitlines() if line.startswith("dn: ")]
    values = "".join(f"servicePrincipalName: {each}\n" for each in names)
    change = f"{name}\nchangetype: modify\nadd: servicePrincipalName\n{values}"
    run_tool(["ldbmodify", f"--configfile={lab.smb_conf}", "-H", database], change)


def granting(agent: AgentClient, directory: Path) -> tuple[float, ...]:
    """Return how long it took each time to grant a lease with a TGT."""
    taken = []
    for _ in range(LEASE_RUNS):
        started = time.perf_counter()
        agent.request("PUT", f"/v1/leases/{directory.name}", body_of("tgt"))
        taken.append((time.perf_counter() - started) * 1000)
    return tuple(taken)


def serving(config: Config, directory: Path) -> float:
    """Return how many milliseconds it takes to open a lease's sockets and have them served.

    It is most of what a container with a broker costs more, which one start does not show.
    """
    started = time.perf_counter()
    serve_kdc(directory.name, str(config.agent_socket), None)
    return (time.perf_counter() - started) * 1000


def body_of(kind: str) -> dict[str, object]:
    """Return what the shim asks for."""
    body = {"spec": "file://w.json", "container": "bench", "runtime_state": "/"}
    return body | {"uid": 0, "gid": 0, "tickets": kind}


@contextmanager
def leases(
    config: Config, agent: AgentClient, numbers: list[int] | range, kind: str
) -> Iterator[list[Path]]:
    """Make leases of a kind, and their directories, until the block ends."""
    directories = [config.leases_directory / f"{number:032x}" for number in numbers]
    for directory in directories:
        directory.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "bench", str(directory)], check=True)
        agent.request("PUT", f"/v1/leases/{directory.name}", body_of(kind))
    yield directories
    for directory in directories:
        agent.request("DELETE", f"/v1/leases/{directory.name}")
        subprocess.run(["umount", str(directory)], check=True)
        directory.rmdir()


def containers(engine: DockerEngine) -> None:
    """Measure the start of containers with a broker, beside those with a TGT."""
    run = ["run", "--rm", "--network=none", "-e", "CREDSPEC=file://w.json"]
    run += ["--tmpfs", "/run/credspec"]
    # Of both kinds, since Docker itself takes time for each mount.
    tgt, broker = (["--tmpfs", f"/run/credspec/tickets={kind}"] for kind in ("tgt", "broker"))
    # An identity that is held, as under a service with several replicas.
    engine.docker("run", "-d", *run[2:], IMAGE, "sleep", "600")
    found = interleaved(
        {
            "with a TGT": lambda: engine.docker(*run, *tgt, IMAGE, "id"),
            "broker": lambda: engine.docker(*run, *broker, IMAGE, "id"),
        },
        RUNS,
    )
    more = found["broker"].median - found["with a TGT"].median
    target = f"{more:+.0f} ms, <= +10 ms"
    row("docker run, with a TGT", found["with a TGT"], None, "", met=True)
    row("docker run, broker", found["broker"], found["with a TGT"], target, met=more <= 10)


if __name__ == "__main__":
    main()
