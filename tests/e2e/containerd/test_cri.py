"""Pods as the kubelet makes them, by the CRI, with the handler that a RuntimeClass names."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from support.engines.containerd_engine import IMAGE, ContainerdEngine
from support.engines.containerd_setup import set_up, setup_of
from support.engines.cri_client import CriClient, Pod
from support.engines.start_waits import short_start_waits

SPEC = {"credspec.dev/spec": "file://WebApp01.json"}
OTHER = {"credspec.dev/spec": "file://WebApp02.json"}
SLEEP = ["sleep", "600"]
# What is started by exec has the environment of the image, not the shim's.
KLIST = ["env", "KRB5CCNAME=/run/credspec/krb5cc", "klist"]
DEFAULT = "Default principal: WebApp01$@EXAMPLE.TEST"


@pytest.fixture
def cri(host: Any, engine: ContainerdEngine) -> Iterator[CriClient]:
    with CriClient(engine.socket) as client:
        yield client
    nothing_left(host)


def nothing_left(host: Any) -> None:
    end = time.monotonic() + 60
    while (host.leases() or host.mounts()) and time.monotonic() < end:
        time.sleep(0.1)
    assert (host.leases(), host.mounts()) == ([], [])


@contextmanager
def pod(cri: CriClient, annotations: dict[str, str], *, handler: str = "credspec") -> Iterator[Pod]:
    made = cri.run_pod("p1", annotations, handler=handler)
    try:
        yield made
    finally:
        made.remove()


def test_an_annotation_of_the_pod_serves_its_containers(host: Any, cri: CriClient) -> None:
    with pod(cri, SPEC) as made:
        assert host.leases() == [], "the sandbox itself needs none"
        one = made.start("one", IMAGE, SLEEP)
        two = made.start("two", IMAGE, SLEEP, user=1000)
        assert sorted(host.leases()) == sorted([one, two])
        for container in (one, two):
            assert DEFAULT in made.exec(container, *KLIST)[1]
        # Each has a copy of its own, which is its user's.
        owner = made.exec(two, "stat", "-c", "%u", "/run/credspec/krb5cc")
        assert owner == (0, "1000\n")


def test_the_agent_is_the_kdc_of_each_container_of_a_pod(host: Any, cri: CriClient) -> None:
    """They share a network, and have a port each."""
    patterns = {"credspec.dev/services": "ldap/*.example.test"}
    broker = SPEC | patterns | {"credspec.dev/tickets": "broker"}
    allowed, refused = f"kvno ldap/{host.lab.dc_host}", f"kvno cifs/{host.lab.dc_host}"
    with pod(cri, broker) as made:
        conf = "export KRB5_CONFIG=/run/credspec/krb5.conf KRB5CCNAME=/run/credspec/krb5cc"
        containers = [made.start(name, IMAGE, SLEEP) for name in ("one", "two")]
        ports = set()
        for container in containers:
            shown = made.exec(container, "sh", "-c", f"{conf}; {allowed} && ! {refused}")
            assert shown[0] == 0, shown
            text = made.exec(container, "cat", "/run/credspec/krb5.conf")[1]
            ports |= {line for line in text.splitlines() if " kdc = 127.0.0.1:" in line}
        assert len(ports) == len(containers)
    nothing_left(host)


def test_the_program_itself_has_the_environment(cri: CriClient) -> None:
    line = "klist > /tmp/written 2>&1; mv /tmp/written /tmp/shown; sleep 600"
    with pod(cri, SPEC) as made:
        container = made.start("one", IMAGE, ["sh", "-c", line])
        end = time.monotonic() + 60
        while (shown := made.exec(container, "cat", "/tmp/shown"))[0] != 0:  # noqa: S108
            assert time.monotonic() < end, shown
            time.sleep(0.1)
        assert DEFAULT in shown[1]


def test_the_domain_knows_the_container(host: Any, cri: CriClient) -> None:
    hosts = f"echo {host.lab.dc_address} {host.lab.dc_host} > /etc/hosts"
    who = f"KRB5CCNAME=/run/credspec/krb5cc ldapwhoami -Q -H ldap://{host.lab.dc_host}"
    conf = "export KRB5_CONFIG=/run/credspec/krb5.conf"
    with pod(cri, SPEC) as made:
        container = made.start("one", IMAGE, SLEEP)
        shown = made.exec(container, "sh", "-c", f"{conf}; {hosts}; {who}")
        assert shown == (0, "u:EXAMPLE\\WebApp01$\n")


def test_tickets_of_services_and_no_tgt(host: Any, cri: CriClient) -> None:
    service = f"ldap/{host.lab.dc_host}"
    wanted = {"credspec.dev/tickets": "services", "credspec.dev/services": service}
    with pod(cri, SPEC | wanted) as made:
        container = made.start("one", IMAGE, SLEEP)
        shown = made.exec(container, *KLIST)[1]
        assert DEFAULT in shown
        assert f"{service}@{host.lab.realm}" in shown
        assert "krbtgt" not in shown
        cache = "KRB5CCNAME=/run/credspec/krb5cc"
        assert made.exec(container, "env", cache, "kvno", "-q", service)[0] == 0
        assert made.exec(container, "env", cache, "kvno", f"cifs/{host.lab.dc_host}")[0] != 0
        [lease] = host.agent.get("/v1/leases")["leases"]
        assert (lease["tickets"], lease["services"]) == ("services", [service])


def test_an_annotation_of_a_container_is_its_own(host: Any, cri: CriClient) -> None:
    with pod(cri, {}) as made:
        one = made.start("one", IMAGE, SLEEP, annotations=SPEC)
        two = made.start("two", IMAGE, SLEEP, annotations=OTHER)
        three = made.start("three", IMAGE, SLEEP)
        assert sorted(host.leases()) == sorted([one, two])
        assert DEFAULT in made.exec(one, *KLIST)[1]
        assert "WebApp02$@" in made.exec(two, *KLIST)[1]
        assert made.exec(three, "ls", "/run/credspec")[0] != 0


def test_a_container_that_is_replaced(host: Any, cri: CriClient) -> None:
    """What the kubelet does when a container of a pod has ended."""
    with pod(cri, SPEC) as made:
        first = made.start("one", IMAGE, SLEEP)
        made.stop_container(first)
        made.remove_container(first)
        nothing_left(host)
        second = made.start("one", IMAGE, SLEEP)
        assert host.leases() == [second]
        assert DEFAULT in made.exec(second, *KLIST)[1]


def test_a_refusal_is_shown_with_its_reason(host: Any, cri: CriClient) -> None:
    with pod(cri, {"credspec.dev/spec": "file://nothing.json"}) as made:
        with pytest.raises(grpc.RpcError) as refused:
            made.start("one", IMAGE, SLEEP)
        assert "nothing.json" in refused.value.details()
        assert "no such file" in refused.value.details()
        assert host.leases() == []


def test_no_agent(host: Any, engine: ContainerdEngine, cri: CriClient) -> None:
    host.stop("agent")
    try:
        with (
            short_start_waits(engine.directory / "libexec/credspec-runtime-containerd"),
            pod(cri, SPEC) as made,
            pytest.raises(grpc.RpcError) as refused,
        ):
            made.start("one", IMAGE, SLEEP)
        assert "[agent-unreachable]" in refused.value.details()
    finally:
        host.start("agent")


@pytest.mark.parametrize(
    "name",
    [
        *("Credspec.dev/spec", "CREDSPEC.DEV/spec", "credspec.dev/specs", " credspec.dev/spec "),
        *("credspec.dev./spec", "credspec.dev%2Fspec", "%63redspec.dev/spec"),
        *("cred\u017fpec.dev/spec", "credspec.dev/\u212aeytab"),
    ],
)
@pytest.mark.parametrize("of", ["pod", "container"])
def test_a_name_is_right_or_refused(host: Any, cri: CriClient, name: str, of: str) -> None:
    misspelt = {name: "file://WebApp01.json"}
    with pod(cri, misspelt if of == "pod" else {}) as made:
        with pytest.raises(grpc.RpcError) as refused:
            made.start("one", IMAGE, SLEEP, annotations=misspelt if of == "container" else {})
        assert "[carrier-misspelt]" in refused.value.details()
        assert host.leases() == []


def test_other_handlers_pass_no_annotations_on(host: Any, cri: CriClient) -> None:
    with pod(cri, SPEC, handler="") as made:
        container = made.start("one", IMAGE, SLEEP)
        assert made.exec(container, "ls", "/run/credspec")[0] != 0
        assert host.leases() == []


def test_containerd_killed_and_started_again(
    host: Any, engine: ContainerdEngine, cri: CriClient
) -> None:
    with pod(cri, SPEC) as made:
        container = made.start("one", IMAGE, SLEEP)
        engine.kill(signal.SIGKILL)
        engine.start()
        assert host.leases() == [container]
        assert DEFAULT in made.exec(container, *KLIST)[1]


def test_setup_again_changes_nothing_and_undo_takes_all_back(
    host: Any, engine: ContainerdEngine, cri: CriClient
) -> None:
    setup = setup_of(host, engine)
    changes = setup.apply(dry_run=True)
    assert [line for line in changes if str(setup.launcher) not in line] == []
    before = engine.config.read_text()
    setup.undo()
    try:
        assert "credspec.dev" not in engine.config.read_text()
        assert not setup.launcher.exists()
        engine.kill(signal.SIGTERM)
        engine.start()
        with pytest.raises(grpc.RpcError, match="credspec"):
            cri.run_pod("p1", SPEC, handler="credspec")
    finally:
        set_up(host, engine)
        engine.kill(signal.SIGTERM)
        engine.start()
    assert engine.config.read_text() == before
    with pod(cri, SPEC) as made:
        made.start("one", IMAGE, SLEEP)
        assert len(host.leases()) == 1
