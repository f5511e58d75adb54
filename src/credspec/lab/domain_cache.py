"""Provisioned domains of labs, kept for the next lab of the same kind.

To provision a domain takes ten times as long as to copy one. A copy has the keys of what it was
copied from: all labs of one cached domain have the same passwords, Kerberos keys, SIDs and TLS
key. They are throwaway domains of one machine, whose cache only root can read, and new keys for
each copy would cost much of what the copy saves; ``--no-cache`` gives a domain keys of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from credspec.lab import dns_records
from credspec.lab.domain import Lab, run_tool

VARIABLE: Final = "CREDSPEC_LAB_CACHE"
"""The variable that names another directory, or turns the cache off: ``off``."""
OFF: Final = "off"
DEFAULT_DIRECTORY: Final = Path("/var/cache/credspec/labs")
LONGEST_AGE_SECONDS: Final = 12 * 3600
"""An older one is made again: passwords that change every day would be due in it."""

_RECORD: Final = "record.json"
_LOCK_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class CachedDomain:
    """A slot of the cache, held by this process: with a domain, still empty, or no slot at all.

    What cannot be written or read costs the time that the cache would save, and nothing else.
    """

    directory: Path | None

    def restore(self, lab: Lab) -> bool:
        """Copy the domain into a lab's directory, if there is one; return whether there was.

        The controller must not run. Addresses and paths in it are changed to those of this lab.

        Raises:
            CredspecError: `lab-samba-tool`.
        """
        record = self._record()
        if record is None or self.directory is None:
            return False
        sources = sorted((self.directory / "files").iterdir())
        try:
            for source in sources:
                _copy(source, lab.directory)
        except (OSError, subprocess.CalledProcessError):
            self.forget()
            for source in sources:
                shutil.rmtree(lab.directory / source.name, ignore_errors=True)
            return False
        text = lab.smb_conf.read_text("utf-8").replace(
            f"{record['directory']}/", f"{lab.directory}/"
        )
        lab.smb_conf.write_text(text, "utf-8")
        dns_records.move_addresses(lab, record["address"], lab.dc_address)
        return True

    def begin(self, lab: Lab, names: tuple[str, ...]) -> None:
        """Copy what a lab's controller has before its first start; `finish` completes it."""
        if self._partial is None:
            return
        try:
            (self._partial / "files").mkdir(mode=0o700, parents=True)
            for name in names:
                if (lab.directory / name).exists():
                    _copy(lab.directory / name, self._partial / "files")
        except (OSError, subprocess.CalledProcessError):
            self.forget()

    def finish(self, lab: Lab) -> None:
        """Add the TLS key that the controller made at its first start, and offer the domain."""
        if self._partial is None or self.directory is None or not self._partial.exists():
            return
        record = {
            "made": time.time(),
            "address": lab.dc_address,
            "directory": str(lab.directory),
        }
        try:
            _copy(lab.directory / "dc/private/tls", self._partial / "files/dc/private")
            (self._partial / _RECORD).write_text(json.dumps(record), "utf-8")
            shutil.rmtree(self.directory, ignore_errors=True)
            self._partial.rename(self.directory)
        except (OSError, subprocess.CalledProcessError):
            self.forget()

    def forget(self, *, whole: bool = True) -> None:
        """Remove the domain, or only what `finish` has not completed."""
        for path in (self._partial, self.directory if whole else None):
            if path is not None:
                shutil.rmtree(path, ignore_errors=True)

    @property
    def _partial(self) -> Path | None:
        return self.directory and self.directory.with_name(self.directory.name + ".partial")

    def _record(self) -> dict[str, str] | None:
        """Return where the domain was made, if there is one and it is not too old."""
        if self.directory is None:
            return None
        try:
            record = json.loads((self.directory / _RECORD).read_text("utf-8"))
            age = time.time() - record["made"]
            found = {name: str(record[name]) for name in ("address", "directory")}
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if 0 <= age <= LONGEST_AGE_SECONDS else None


def cache_directory() -> Path | None:
    """Return where domains are kept; None if the cache is turned off."""
    value = os.environ.get(VARIABLE, "")
    if value == OFF:
        return None
    return Path(value) if value else DEFAULT_DIRECTORY


@contextlib.contextmanager
def cached_domain(lab: Lab, kind: str, *, root: Path | None) -> Iterator[CachedDomain]:
    """Hold the slot of such a domain, so that two labs do not both provision it.

    `kind` says what the domain holds, `root` where domains are kept. There is no slot without
    `root`, if others than root can enter it, if it cannot be written, or if another process holds
    the slot for minutes.
    """
    with contextlib.ExitStack() as held:
        slot = CachedDomain(None)
        if root is not None and _is_private(root):
            directory = root / _key(lab, kind)
            with contextlib.suppress(OSError):
                lock = os.open(f"{directory}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                held.callback(os.close, lock)
                if _locked(lock):
                    _remove_old(root)
                    slot = CachedDomain(directory)
                    slot.forget(whole=False)
        try:
            yield slot
        finally:
            slot.forget(whole=False)


def clear() -> None:
    """Remove all that is kept; no cache is fine."""
    root = cache_directory()
    if root is not None and root.is_dir() and _is_private(root):
        for path in root.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)


def _key(lab: Lab, kind: str) -> str:
    """Return the name of a slot: equal for domains that would be provisioned equally."""
    found = hashlib.blake2s(digest_size=12)
    parts = [lab.realm, lab.netbios, kind, run_tool(["samba", "--version"])]
    parts += [path.read_text("utf-8") for path in sorted(Path(__file__).parent.glob("*.py"))]
    for part in parts:
        found.update(f"{len(part)}:{part}".encode())
    return found.hexdigest()


def _is_private(root: Path) -> bool:
    """Make the directory; return whether it is one that only its owner, this user, can enter."""
    with contextlib.suppress(OSError):
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = root.lstat()
        return (
            stat.S_ISDIR(status.st_mode)
            and status.st_uid == os.geteuid()
            and not status.st_mode & 0o077
        )
    return False


def _locked(lock: int) -> bool:
    end = time.monotonic() + _LOCK_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.05)
    return False


def _remove_old(root: Path) -> None:
    """Remove domains that nobody will take any more."""
    for record in root.glob(f"*/{_RECORD}"):
        with contextlib.suppress(OSError):
            if time.time() - record.stat().st_mtime > LONGEST_AGE_SECONDS:
                shutil.rmtree(record.parent, ignore_errors=True)


def _copy(source: Path, directory: Path) -> None:
    """Copy a file or tree with its owners, modes, times, and extended attributes with ACLs."""
    command = ["cp", "--archive", "--reflink=auto", "--", str(source), str(directory)]
    subprocess.run(command, check=True, capture_output=True)
