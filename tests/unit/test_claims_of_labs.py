from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.suite import parallel

HELD = """
import sys
from support.suite import parallel
claim = parallel.claimed(sys.argv[1])
print(claim is not None, flush=True)
sys.stdin.read()
"""


def test_another_run_has_a_lab_until_it_ends() -> None:
    name = "claims-of-labs"
    tests = Path(__file__).parents[1]
    with subprocess.Popen(
        [sys.executable, "-c", HELD, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=tests,
        env={"PYTHONPATH": str(tests)},
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        assert parallel.claimed(name) is None
        other.kill()
        other.wait()
    claim = parallel.claimed(name)
    assert claim is not None
    claim.close()
