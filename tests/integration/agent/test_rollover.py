"""Passwords that change, on a real controller under a faked clock: the agent's rule must hold.

The domain is a lab of its own, since its time must not go back once a password has changed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from credspec.lab import provisioning
from credspec.lab.domain import Lab
from credspec.lab.provisioning import DAILY

FAKETIME = f"/usr/lib/{os.uname().machine}-linux-gnu/faketime/libfaketimeMT.so.1"

# Runs on the lab's host with the controller's clock, and prints what it saw.
ACQUIRE = f"""
import json, os, pathlib
from credspec.directory.connection import LIBLDAP_ENVIRONMENT
os.environ |= LIBLDAP_ENVIRONMENT | {{"KRB5CCNAME": "MEMORY:credspec-host"}}
from credspec.agent.config import load_config
from credspec.agent.domain_session import DomainSession
from credspec.agent.host_identity import MachineKeytab
from credspec.directory.locator import DnsResolver, Locator
from credspec.errors import NotPermittedError
from credspec.kerberos.keys import computer_salt, derive_keys
from credspec.kerberos.tickets import ticket_from_keys
config = load_config()
host = MachineKeytab(config.keytab)
session = DomainSession(host.domain, host_identity=host, locator=Locator(DnsResolver()),
    transport=config.transport, ca_file=None, krb5_conf=None)
acquired = session.acquire({DAILY!r})
_, _, password = session.read_password({DAILY!r})
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
print(json.dumps({{
    "principal": acquired.ticket.principal,
    "query_seconds": password.query_interval.total_seconds(),
    "current": accepted(password.current),
    "previous": accepted(password.previous),
}}))
"""


@pytest.fixture(scope="module")
def own_lab(lab: Lab) -> Iterator[Lab]:
    """A second domain; the first stays up beside it."""
    del lab
    found = provisioning.up("rollover", realm="ROLL.TEST")
    yield found
    found.down()


def acquire(lab: Lab, offset: int) -> dict:
    """Let a host acquire, with both clocks moved by `offset` seconds."""
    lab.stop_dc()
    lab.start_dc(offset_seconds=offset)
    command = [sys.executable, "-c", ACQUIRE]
    environment = dict(os.environ)
    if offset:
        environment |= {
            "LD_PRELOAD": FAKETIME,
            "FAKETIME": f"{offset:+d}s",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
    result = subprocess.run(
        lab.exec_argv(command), capture_output=True, text=True, env=environment, check=False
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_a_ticket_before_within_and_after_the_five_minutes(own_lab: Lab) -> None:
    normal = acquire(own_lab, 0)
    assert (normal["current"], normal["principal"]) == ("accepted", f"{DAILY}$@ROLL.TEST")
    due = int(normal["query_seconds"])
    within = acquire(own_lab, due - 150)
    assert within["query_seconds"] <= 300
    assert (within["current"], within["previous"]) == ("kdc-key-refused", "accepted")
    assert within["principal"] == f"{DAILY}$@ROLL.TEST"
    after = acquire(own_lab, due + 400)
    assert (after["current"], after["query_seconds"] > 300) == ("accepted", True)
    next_window = acquire(own_lab, due + 20 * 3600 - 150)
    assert (next_window["current"], next_window["previous"]) == ("kdc-key-refused", "accepted")
    missed_two = acquire(own_lab, due + 60 * 3600 + 400)
    assert missed_two["current"] == "accepted"
