"""What the agent does to its own process, tried in processes of their own."""

from __future__ import annotations

import subprocess
import sys


def run(program: str) -> str:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_the_limit_on_memory_holds_and_leaves_room_for_every_thread() -> None:
    """As many threads as a domain of many controllers takes, each with a stack that counts."""
    printed = run("""
import threading
from credspec.service.process_safety import limit_memory
from credspec.directory.controller_probe import probe_addresses
limit_memory()
ended = threading.Event()
def ping(address, request):
    ended.wait(30)
    return iter(())
def probe(address, port):
    ended.wait(30)
    return True
addresses = [f"192.0.2.{n}" for n in range(64)]
results = probe_addresses(addresses, domain="example.test", port=389, ping=ping, probe=probe)
print(len(results), threading.active_count())
ended.set()
try:
    bytearray(2 << 30)
except MemoryError:
    print("bounded")
""")
    assert printed.split() == ["64", "129", "bounded"]


def test_a_lower_limit_stays() -> None:
    printed = run("""
import resource
from credspec.service.process_safety import limit_memory
resource.setrlimit(resource.RLIMIT_DATA, (1 << 29, 1 << 29))
limit_memory()
print(*resource.getrlimit(resource.RLIMIT_DATA))
""")
    assert printed.split() == [str(1 << 29)] * 2
