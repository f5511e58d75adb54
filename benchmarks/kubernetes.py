"""Pods of a real cluster: what an identity costs until they are ready, and what a node keeps.

Needs the programs of `make test-kubernetes`, which are built once.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPSConnection
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

from credspec.lab import provisioning
from credspec.lab.client_image import write_client_image
from credspec.lab.namespaces import bind
from measure import Sample, figure, interleaved, row
from support.kubernetes.chart import NAMESPACE, Chart
from support.kubernetes.cluster import Cluster
from support.kubernetes.namespace import Namespace, asking, container, pod, with_volume
from support.kubernetes.programs import missing
from support.machine.mount_namespaces import own_mount_namespace, own_runtime_directories

RUNS = 15
HELD_TARGET, FIRST_TARGET = 60.0, 150.0
MOST = 3
MIB = 1024


class Pods:
    """Makes pods by the API itself, and says when they are ready."""

    def __init__(self, cluster: Cluster) -> None:
        context = ssl.create_default_context(cafile=str(cluster.certificates.authority.certificate))
        certificate, key = cluster.certificates.issue_client("/O=system:masters/CN=bench")
        context.load_cert_chain(certificate, key)
        host, _, port = cluster.url.removeprefix("https://").partition(":")
        self._connection = HTTPSConnection(host, int(port), context=context)
        self._numbers = count()
        self._cluster = cluster

    def ready(self, made: dict[str, Any]) -> None:
        """Make a pod and wait until it is ready."""
        name = f"bench-{next(self._numbers)}"
        made["metadata"]["name"] = name
        path = "/api/v1/namespaces/shop/pods"
        self._ask("POST", path, json.dumps(made))
        while True:
            status = self._ask("GET", f"{path}/{name}")["status"]
            states = {each["type"]: each["status"] for each in status.get("conditions", [])}
            if states.get("Ready") == "True":
                return
            time.sleep(0.005)

    def _ask(self, method: str, path: str, body: str | None = None) -> Any:
        self._connection.request(method, path, body, {"Content-Type": "application/json"})
        with self._connection.getresponse() as answer:
            content = answer.read()
            if answer.status >= 300:
                sys.exit(f"{method} {path}: {content[:500]!r}")
            return json.loads(content)


@contextmanager
def installed() -> Iterator[tuple[Chart, Namespace]]:
    """A domain, a cluster in its network, and the chart in it."""
    own_mount_namespace()
    own_runtime_directories()
    lab = provisioning.up("benchk8s")
    try:
        for name in ("resolv.conf", "hosts"):
            bind(lab.directory / name, Path("/etc", name).resolve())
        os.environ.update(lab.environment)
        image = BytesIO()
        write_client_image(image)
        cluster = Cluster(lab, image.getvalue())
        try:
            cluster.up()
            chart = Chart(lab, cluster)
            chart.load_image()
            chart.install()
            shop = Namespace(lab, cluster)
            for number in (1, 2, 3):
                shop.allow(f"WebApp0{number}")
            yield chart, shop
        finally:
            cluster.down()
    finally:
        lab.down()


def pods_become_ready(chart: Chart, shop: Namespace) -> None:
    """Compare pods with an identity to the same ones with an emptyDir."""
    pods = Pods(chart.cluster)

    def plain() -> None:
        mounts = [{"name": "gmsa", "mountPath": "/run/credspec"}]
        main = container(volumeMounts=mounts)
        pods.ready(pod("x", main, volumes=[{"name": "gmsa", "emptyDir": {"medium": "Memory"}}]))

    def held() -> None:
        pods.ready(with_volume("x"))

    before = questions(chart.cluster)
    taken = interleaved({"emptyDir": plain, "identity": held}, RUNS)
    each = (questions(chart.cluster) - before) / (RUNS + 1)
    shop.clear()
    note = "reviews and reads, as the API server counts them"
    figure("requests of the driver for a pod", f"{each:.1f}", note, "at most 3", met=each <= MOST)
    against = taken["emptyDir"]
    more = taken["identity"].median - against.median
    is_met = more <= HELD_TARGET
    target = f"at most {HELD_TARGET:.0f} ms more"
    row("pod to Ready, identity held on the node", taken["identity"], against, target, met=is_met)
    firsts = []
    for number in (2, 3):
        started = time.perf_counter()
        pods.ready(with_volume("x", spec=f"webapp0{number}"))
        firsts.append((time.perf_counter() - started) * 1000)
    shop.clear()
    sample = Sample("first", (*firsts, firsts[-1]))
    target = f"at most {FIRST_TARGET:.0f} ms more"
    is_met = statistics.median(firsts) - against.median <= FIRST_TARGET
    row("pod to Ready, the first of an account on the node", sample, against, target, met=is_met)


def questions(cluster: Cluster) -> float:
    """Return how often the API server was asked for an object or about a right to use one."""
    found = 0.0
    for line in cluster.kubectl("get", "--raw=/metrics").splitlines():
        name, _, rest = line.partition("{")
        is_read = 'resource="gmsacredentialspecs"' in rest and 'verb="GET"' in rest
        if name == "apiserver_request_total" and (is_read or 'localsubjectaccessreviews"' in rest):
            found += float(line.rpartition(" ")[2])
    return found


def memory(chart: Chart) -> None:
    """Say what agent and driver of an idle node keep in memory."""
    sizes = {name: resident(chart.pid(name)) for name in ("agent", "csi-driver")}
    total = sum(sizes.values())
    note = ", ".join(f"{name} {size:.0f} MiB" for name, size in sizes.items())
    figure(
        "agent and driver of an idle node",
        f"{total:.0f} MiB",
        note,
        "at most 120 MiB",
        met=total <= 120,
    )


def webhook(chart: Chart) -> None:
    """Measure a replica of the webhook, asked as the API server asks it."""
    cluster = chart.cluster
    everyone = ("--role=use-webapp01", "--group=system:serviceaccounts:shop")
    cluster.kubectl("create", "rolebinding", "everyone", "--namespace=shop", *everyone)
    name = chart.webhooks()[0]
    status = cluster.get("pod", name, "-n", NAMESPACE)["status"]
    pid = chart.process_of(status["containerStatuses"][0]["containerID"].rpartition("/")[2])
    query = "-o=jsonpath={.webhooks[0].clientConfig.caBundle}"
    bundle = cluster.kubectl("get", "mutatingwebhookconfiguration", "credspec-webhook", query)
    authorities, pod_file = cluster.directory / "webhook.crt", cluster.directory / "pod.json"
    authorities.write_bytes(base64.b64decode(bundle))
    pod_file.write_text(json.dumps(asking("x")))
    address = f"{status['podIP']}:8443"
    command = [sys.executable, str(Path(__file__).with_name("webhook_load.py")), address]
    command += [f"credspec-webhook.{NAMESPACE}.svc", str(authorities), str(pod_file)]
    certificate, key = cluster.certificates.issue_client("/O=system:masters/CN=load")
    authority = cluster.certificates.authority.certificate
    command += [cluster.url, str(authority), str(certificate), str(key)]
    with subprocess.Popen(cluster.in_network(command), stdout=subprocess.PIPE, text=True) as load:
        if load.stdout is None or load.stdout.readline() != "load\n":
            sys.exit("the webhook's load did not begin")
        before = processor_seconds(pid)
        found = json.loads(load.stdout.readline())
    asked = Sample("its questions to the API server", tuple(found["milliseconds"]["api server"]))
    target = "at most 5 ms"
    for kind, what in (
        ("replica", "admission by the webhook, two reviews, of a replica"),
        ("new", "admission by the webhook, two reviews, of a new account"),
    ):
        taken = Sample(kind, tuple(found["milliseconds"][kind]))
        row(what, taken, asked, target, met=taken.median <= 5)
    a_second = found["admissions"] / (processor_seconds(pid) - before)
    figure(
        "admissions by a second of a processor",
        f"{a_second:.0f}",
        f"{found['admissions'] / found['seconds']:.0f} a second were made",
        "at least 200",
        met=a_second >= 200,
    )
    size = resident(pid)
    figure("webhook after them", f"{size:.0f} MiB", "", "at most 64 MiB", met=size <= 64)


def processor_seconds(pid: int) -> float:
    """Return how much of a processor a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """Return how much of a process is in memory, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / MIB


def main() -> None:
    """Measure all of it."""
    if missing():
        sys.exit(f"not built: {', '.join(missing())}; make test-kubernetes builds them")
    with installed() as (chart, shop):
        memory(chart)
        webhook(chart)
        pods_become_ready(chart, shop)


if __name__ == "__main__":
    main()
