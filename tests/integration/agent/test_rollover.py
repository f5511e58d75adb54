"""Passwords that change, on a real controller under a faked clock: the agent's rule must hold.

The domain is a lab of its own, since its time must not go back once a password has changed.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import krb5
import pytest

from credspec.api_client import AgentClient
from credspec.errors import AgentUnreachableError
from credspec.lab import provisioning
from credspec.lab.domain import Lab
from credspec.lab.provisioning import DAILY

BIN = Path(sys.executable).parent
FAKETIME = f"/usr/lib/{os.uname().machine}-linux-gnu/faketime/libfaketimeMT.so.1"

pytestmark = pytest.mark.timeout(900)  # a domain of its own, and waits for moments

# Runs on the lab's host with the controller's clock, and prints what it saw.
ACQUIRE = f"""
import json, os, sys, time
os.environ["KRB5CCNAME"] = "MEMORY:credspec-host"
from credspec.config.host import load_config
from credspec.session.domain_session import DomainSession
from credspec.session.host_identity import MachineKeytab
from credspec.directory.accounts import find_account, read_key_version
from credspec.directory.locator import DnsResolver, Locator
from credspec.kerberos.keytab import managed_password_keys
from credspec.errors import NotPermittedError, UnreachableError
from credspec.kerberos.keys import computer_salt, derive_keys
from credspec.kerberos.tickets import ticket_from_keys
config = load_config()
host = MachineKeytab(config.keytab)
session = DomainSession(host.domain, host_identity=host, locator=Locator(DnsResolver()),
    transport=config.transport, ca_file=None, krb5_conf=None)
def accepted(value):
    if value is None:
        return None
    realm = host.domain.upper()
    try:
        keys = derive_keys(value, computer_salt(realm, {DAILY!r}))
        ticket_from_keys(f"{DAILY}$@{{realm}}", keys)
    except NotPermittedError as error:
        return error.code
    return "accepted"
def acquire():
    # A busy machine may hold the controller up for longer than it is waited for.
    end = time.monotonic() + 120
    while True:
        try:
            return acquire_once()
        except UnreachableError:
            if time.monotonic() > end:
                raise
def acquire_once():
    acquired = session.acquire({DAILY!r})
    _, realm, password = session.passwords.read({DAILY!r})
    def key_version(connection, facts):
        return read_key_version(connection, find_account(connection, facts, {DAILY!r}))
    version = session.connection.use(key_version)
    keys = managed_password_keys({DAILY!r}, realm, password, version)
    return {{
        "keytab": {{n: [k.value.hex() for k in of_one] for n, of_one in keys.items()}},
        "principal": acquired.ticket.principal,
        "query_seconds": password.query_interval.total_seconds(),
        "current": accepted(password.current),
        "previous": accepted(password.previous),
    }}
seen = [acquire()]
if sys.argv[1:] == ["across"]:
    end = time.monotonic() + 240
    def is_near(one):
        return one["query_seconds"] <= 300
    def crossed():
        return is_near(seen[0]) != is_near(seen[-1])
    while not crossed() and time.monotonic() < end:
        seen.append(acquire())
    for _ in range(20):
        seen.append(acquire())
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def own_lab(lab: Lab) -> Iterator[Lab]:
    """A second domain; the first stays up beside it."""
    found = provisioning.up(f"{lab.name}-rollover", realm="ROLL.TEST")
    yield found
    found.down()


def faked(offset: int) -> dict[str, str]:
    """Return the environment of a process whose clock is off."""
    if not offset:
        return dict(os.environ)
    return os.environ | {
        "LD_PRELOAD": FAKETIME,
        "FAKETIME": f"{offset:+d}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def exported_keys(lab: Lab, offset: int, path: Path) -> dict[str, set[str]]:
    """Return the keys that Samba itself would put into a keytab then, by their versions."""
    database = lab.directory / "dc/private/sam.ldb"
    command = ["samba-tool", "domain", "exportkeytab", str(path), f"--principal={DAILY}$"]
    command += ["-s", str(lab.smb_conf), "-H", str(database)]
    subprocess.run(command, env=faked(offset), capture_output=True, check=True)
    found: dict[str, set[str]] = {}
    context = krb5.init_context()
    for entry in krb5.kt_resolve(context, f"FILE:{path}".encode()):
        found.setdefault(str(entry.kvno), set()).add(entry.key.data.hex())
    return found


def acquire(lab: Lab, offset: int, *arguments: str) -> list[dict]:
    """Let a host acquire, with both clocks moved by `offset` seconds.

    With the argument ``across``, it does so over and over until the controller's answers change
    from those within five minutes of a rollover to others or back, and twenty times more.
    """
    lab.stop_dc()
    lab.start_dc(offset_seconds=offset)
    command = [sys.executable, "-c", ACQUIRE, *arguments]
    result = subprocess.run(
        lab.exec_argv(command), capture_output=True, text=True, env=faked(offset), check=False
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_a_ticket_before_within_and_after_the_five_minutes(own_lab: Lab) -> None:
    [normal] = acquire(own_lab, 0)
    assert (normal["current"], normal["principal"]) == ("accepted", f"{DAILY}$@ROLL.TEST")
    due = int(normal["query_seconds"])
    [within] = acquire(own_lab, due - 150)
    assert within["query_seconds"] <= 300
    assert (within["current"], within["previous"]) == ("kdc-key-refused", "accepted")
    assert within["principal"] == f"{DAILY}$@ROLL.TEST"
    [after] = acquire(own_lab, due + 400)
    assert (after["current"], after["query_seconds"] > 300) == ("accepted", True)
    [next_window] = acquire(own_lab, due + 20 * 3600 - 150)
    assert (next_window["current"], next_window["previous"]) == ("kdc-key-refused", "accepted")
    [missed_two] = acquire(own_lab, due + 60 * 3600 + 400)
    assert missed_two["current"] == "accepted"


def test_keytabs_hold_both_passwords_keys_with_their_versions(own_lab: Lab, tmp_path: Path) -> None:
    """Read before, within and after: the same version is always the same keys, and Samba's too."""
    base = 15 * 24 * 3600
    [normal] = acquire(own_lab, base)
    due = base + int(normal["query_seconds"])
    [within] = acquire(own_lab, due - 150)
    [after] = acquire(own_lab, due + 400)
    (current, *_), (following, still_current) = normal["keytab"], within["keytab"]
    assert int(following) == int(current) + 1
    assert still_current == current
    assert list(after["keytab"]) == [following, current]
    assert within["keytab"][current] == normal["keytab"][current]
    assert after["keytab"] == within["keytab"]
    exported = exported_keys(own_lab, due + 400, tmp_path / "keytab")
    for version, keys in after["keytab"].items():
        assert exported[version] == set(keys)


def test_at_both_edges_of_the_five_minutes_no_acquisition_fails(own_lab: Lab) -> None:
    """The host acquires without pause while the window opens, and while the password changes."""
    base = 30 * 24 * 3600
    asked = time.monotonic()
    [normal] = acquire(own_lab, base)
    # From the stop of the controller to the host's first answer it takes so long, or less.
    lead = 10 + 2 * int(time.monotonic() - asked)
    begin = time.time()
    due = base + int(normal["query_seconds"])

    def offset(moment: int) -> int:
        # The controllers' clock is ours and the offset: what has passed since counts as well.
        return moment - int(time.time() - begin)

    for edge in (due - 300, due):
        seen = acquire(own_lab, offset(edge - lead), "across")
        near = [one["query_seconds"] <= 300 for one in seen]
        # It was seen to change, once.
        assert sum(a != b for a, b in itertools.pairwise(near)) == 1
        assert near[0] == (edge == due)
        for one in seen:
            assert "accepted" in {one["current"], one["previous"]}
            assert one["principal"] == f"{DAILY}$@ROLL.TEST"
        assert "kdc-key-refused" in {one["current"] for one in seen}


def answers(client: AgentClient) -> bool:
    try:
        client.get("/healthz")
    except AgentUnreachableError:
        return False
    return True


def test_a_containers_keytab_has_the_next_keys_before_they_are_in_force(
    own_lab: Lab, tmp_path: Path
) -> None:
    """The agent as a process: before the five minutes, and started again within them."""
    base = 45 * 24 * 3600
    [normal] = acquire(own_lab, base)
    begin = time.time()
    due = base + int(normal["query_seconds"])
    run = own_lab.run_directory
    state, lease = tmp_path / "state", run / "leases" / ("a" * 32)
    state.mkdir()
    lease.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "lease", str(lease)], check=True)
    spec = ["-AccountName", DAILY, "-Path", f"{own_lab.specs_directory}/d.json"]
    body = {"spec": "file://d.json", "container": "c", "runtime_state": str(state)}
    wanted = body | {"uid": 0, "gid": 0, "keytab": True}

    def versions(offset: int, *, lasts: Callable[[], bool]) -> set[int]:
        """Run the agent with both clocks moved while `lasts`; return the keytab's key versions."""
        offset -= int(time.time() - begin)
        own_lab.stop_dc()
        own_lab.start_dc(offset_seconds=offset)
        command = [str(BIN / "credspec"), "agent"]
        with (tmp_path / "log").open("ab") as log:
            agent = subprocess.Popen(
                own_lab.exec_argv(command), env=faked(offset), stdout=log, stderr=log
            )
        client = AgentClient(run / "agent.sock")
        try:
            end = time.monotonic() + 180
            while not answers(client) and time.monotonic() < end:
                time.sleep(0.05)
            if not client.get("/v1/leases")["leases"]:
                new = own_lab.exec_argv([str(BIN / "New-CredentialSpec"), *spec])
                subprocess.run(new, env=faked(offset), check=True, capture_output=True)
                client.request("PUT", f"/v1/leases/{'a' * 32}", wanted)
            while lasts() and time.monotonic() < end:
                time.sleep(0.05)
        finally:
            agent.terminate()
            agent.wait(60)
        table = krb5.kt_resolve(krb5.init_context(), f"FILE:{lease}/krb5.keytab".encode())
        return {entry.kvno for entry in table}

    try:
        before = versions(due - 900, lasts=lambda: False)
        made = (lease / "krb5.keytab").stat().st_ino
        # Within: nobody asks, the agent itself knows.
        after = versions(due - 60, lasts=lambda: (lease / "krb5.keytab").stat().st_ino == made)
        assert max(after) == max(before) + 1
        assert max(before) in after
        exported = exported_keys(own_lab, due + 400, tmp_path / "keytab")
        assert str(max(after)) in exported
    finally:
        subprocess.run(["umount", "-l", str(lease)], check=True)
