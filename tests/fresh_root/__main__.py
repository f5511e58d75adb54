"""Try a committed state as a new user would: ``make try``, on a fresh Debian.

Bootstraps a minimal Debian with what the README assumes, clones HEAD there and runs `make demo` and
`make test`. Fails if they do, or if they changed mounts, links or sysctls there or on this machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from support.machine import machine_state
from support.machine.fresh_root import FreshRoot

CHECKOUT = Path(__file__).resolve().parents[2]
NEEDED = ("mmdebstrap", "slirp4netns", "unshare", "nsenter", "setpriv", "git")


State = dict[str, Any]


class FailedError(Exception):
    """A step failed."""


class Trial:
    """The steps, what they print, and how long each took."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        folder = CHECKOUT / "build/try"
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / f"{options.release}-{time.strftime('%Y%m%d-%H%M%S')}.log"
        self._file = self.log.open("wb")
        self.took: list[tuple[str, float, str]] = []

    def show(self, piece: bytes) -> None:
        """Print, and keep in the log."""
        os.write(1, piece)
        self._file.write(piece)
        self._file.flush()

    def say(self, line: str) -> None:
        """Print a line of this program's own."""
        self.show(f"{line}\n".encode())

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Say what is being done, and note how long it took and whether it went well."""
        self.say(f"=== {title}")
        started, outcome = time.monotonic(), "failed"
        try:
            yield
            outcome = "ok"
        finally:
            took = time.monotonic() - started
            self.took.append((title, took, outcome))
            self.say(f"=== {title}: {outcome}, {took:.0f} s")

    def run(self) -> None:
        """Do it all.

        Raises:
            FailedError: something failed, or changed what it must not.
        """
        root = FreshRoot(self.options.release, self.show, self.options.root)
        keep, failed = self.options.keep or not root.is_new, True
        outside = machine_state.state()
        try:
            if root.is_new:
                with self.step(f"a fresh Debian {self.options.release} in {root.folder}"):
                    demand(root.bootstrap() == 0, "mmdebstrap failed")
                    root.take_over()
            demand(root.clone(CHECKOUT) == 0, "git failed")
            root.start()
            self._run_inside(root)
            failed = False
        finally:
            keep = keep or (failed and self.options.keep_on_failure)
            root.close(keep=keep)
            if keep:
                self.say(f"Kept: {root.folder}; go on in it with ROOT={root.folder}")
        changes = self._changes(outside, machine_state.state(), "this machine", shared=True)
        demand(not changes, "\n".join(changes))

    def _run_inside(self, root: FreshRoot) -> None:
        before = root.state()
        problems = []
        for line in self.options.commands:
            try:
                with self.step(line):
                    status = root.shell(line)
                    demand(status == 0, f"`{line}` failed with status {status}")
            except FailedError as error:
                problems.append(str(error))
                if not self.options.go_on:
                    break
        problems += self._changes(before, root.state(), "the fresh Debian", shared=False)
        demand(not problems, "\n".join(problems))

    def _changes(self, before: State, after: State, where: str, *, shared: bool) -> list[str]:
        found = machine_state.differences(before, after, shared=shared)
        if not found:
            self.say(f"=== {where}: mounts, links and sysctls are as before")
        return [f"{where}, changed: {line}" for line in found]


def demand(held: bool, otherwise: str) -> None:
    """Fail unless something holds."""
    if not held:
        raise FailedError(otherwise)


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="make try", description=__doc__)
    parser.add_argument("release", choices=["bookworm", "trixie"])
    parser.add_argument("--run", dest="commands", action="append", metavar="COMMAND")
    parser.add_argument("--root", type=Path, help="go on in a root that was kept")
    parser.add_argument("--keep", action="store_true", help="keep the root")
    parser.add_argument("--keep-on-failure", action="store_true", help="keep it if a step failed")
    parser.add_argument("--go-on", action="store_true", help="run what is left after a failure")
    options = parser.parse_args()
    options.commands = options.commands or ["make demo", "make test"]
    return options


def interrupted(number: int, _: object) -> NoReturn:
    """Leave as on Ctrl-C."""
    raise KeyboardInterrupt(signal.Signals(number).name)


def main() -> int:
    """Run the trial; return the exit status."""
    options = parse()
    lacking = [name for name in NEEDED if shutil.which(name) is None]
    if lacking or os.geteuid() != 0:
        sys.stderr.write(f"This needs root, and programs that are not here: {lacking}\n")
        return 2
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    trial = Trial(options)
    changed = subprocess.run(
        ["git", "-c", "safe.directory=*", "-C", str(CHECKOUT), "status", "--porcelain"],
        capture_output=True,
        check=False,
    ).stdout
    if changed:
        trial.say("What is not committed is not tried.")
    failure = None
    try:
        trial.run()
    except (FailedError, OSError) as error:
        failure = str(error)
    except KeyboardInterrupt:
        failure = "interrupted"
    trial.say("")
    for title, took, outcome in trial.took:
        trial.say(f"{took:8.0f} s  {outcome:7} {title}")
    trial.say(f"\nFAILED: {failure}" if failure else "\nAll went well.")
    trial.say(f"The log: {trial.log}")
    return 1 if failure else 0


if __name__ == "__main__":
    sys.exit(main())
