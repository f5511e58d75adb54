"""No signal but those that are meant to ends a service."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

SERVICE = """
import asyncio, os, sys
from credspec.service.signals import handle_signals, survive_signals
survive_signals()
async def main():
    stop = asyncio.Event()
    handle_signals(stop.set, lambda: print("hangup", flush=True))
    print("ready", flush=True)
    await stop.wait()
    print("clean", flush=True)
asyncio.run(main())
"""
# Those that tell of a defect, that stop and continue, and those that end it cleanly.
OTHERS = {
    *("KILL", "STOP", "TSTP", "TTIN", "TTOU", "CONT", "SEGV", "BUS", "FPE", "ILL", "ABRT", "TRAP"),
    *("SYS", "TERM", "INT"),
}
STRAY = sorted(
    number
    for number in signal.valid_signals()
    if number not in {getattr(signal, f"SIG{name}") for name in OTHERS}
)


def test_every_stray_signal_is_survived_and_the_end_is_clean() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVICE], stdout=subprocess.PIPE, text=True
    ) as service:
        assert service.stdout is not None
        assert service.stdout.readline() == "ready\n"
        for number in STRAY:
            service.send_signal(number)
        assert service.stdout.readline() == "hangup\n"
        assert service.poll() is None
        service.send_signal(signal.SIGTERM)
        assert service.stdout.readline() == "clean\n"
    assert service.returncode == 0
    assert {signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT, signal.SIGPIPE} <= {*STRAY}


def test_what_has_a_handler_or_is_ignored_stays_so() -> None:
    code = (
        "import signal; from credspec.service.signals import survive_signals\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('mine'))\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "survive_signals(); signal.raise_signal(signal.SIGUSR1)\n"
        "print(signal.getsignal(signal.SIGHUP).name)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["mine", "SIG_IGN"]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT])
def test_a_program_that_is_started_has_the_defaults(number: signal.Signals) -> None:
    code = (
        "import subprocess, sys; from credspec.service.signals import survive_signals\n"
        "survive_signals(); number = sys.argv[1]\n"
        "ended = subprocess.run(['sh', '-c', f'kill -{number} $$']).returncode\n"
        "sys.exit(ended != -int(number))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code, str(int(number))], check=False).returncode == 0
    )
