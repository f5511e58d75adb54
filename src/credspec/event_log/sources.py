"""Where the lines come from: files that grow and are rotated, and programs that print them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from credspec.errors import CredspecError, NotPermittedError
from credspec.event_log.entries import MAX_LINE

_CHUNK: Final = 1 << 20
_UNITS: Final = ("credspec-agent.service", "credspec-docker-gateway.service")


class Lines(Protocol):
    """A source of lines."""

    def new(self) -> Iterator[str]:
        """Yield the lines that are whole since the last call, without waiting for more."""
        ...

    def close(self) -> None:
        """Read no more."""
        ...


class _Splitter:
    """Makes lines of bytes that come in pieces; what is too long for a line is left out."""

    def __init__(self) -> None:
        self._rest = b""

    def lines(self, data: bytes) -> Iterator[str]:
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > 4 * MAX_LINE:
            self._rest = b""
        return (line.decode("utf-8", "replace") for line in whole)

    def forget(self) -> None:
        self._rest = b""


class GrowingFile:
    """A file that grows, and may be replaced, cut or not there yet.

    It begins with the file that rotation by its usual name has put aside, ``NAME.1``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._splitter = _Splitter()
        self._file: int | None = None
        self._at = 0
        self._aside: Path | None = path.with_name(f"{path.name}.1")

    def new(self) -> Iterator[str]:
        """Yield the lines that are whole since the last call.

        Raises:
            NotPermittedError: `log-unreadable`; so also CredspecError, for other reasons.
        """
        if self._aside is not None:
            aside, self._aside = self._aside, None
            yield from self._all_of(aside)
        while True:
            yield from self._rest()
            status = self._status()
            # What was written before the file was replaced has been read by now.
            if status is None or self._is_open(status):
                return
            self._open()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _all_of(self, path: Path) -> Iterator[str]:
        with suppress(FileNotFoundError):
            other = GrowingFile(path)
            other._aside = None
            try:
                yield from other.new()
            finally:
                other.close()

    def _rest(self) -> Iterator[str]:
        if self._file is None:
            return
        if os.fstat(self._file).st_size < self._at:  # it was cut, so it begins again
            self._at = os.lseek(self._file, 0, os.SEEK_SET)
            self._splitter.forget()
        while data := self._read(self._file):
            self._at += len(data)
            yield from self._splitter.lines(data)

    def _read(self, file: int) -> bytes:
        try:
            return os.read(file, _CHUNK)
        except OSError as error:
            raise _unreadable(self._path, error) from None

    def _status(self) -> os.stat_result | None:
        try:
            return self._path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(self._path, error) from None

    def _is_open(self, status: os.stat_result) -> bool:
        if self._file is None:
            return False
        return os.path.samestat(status, os.fstat(self._file))

    def _open(self) -> None:
        try:
            opened = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _unreadable(self._path, error) from None
        self.close()
        self._file, self._at = opened, 0
        self._splitter.forget()


class Pipe:
    """What a program or a terminal writes; with `wait`, `new` comes back at its end only."""

    def __init__(self, descriptor: int, *, wait: bool) -> None:
        self._descriptor = descriptor
        self._wait = wait
        self._splitter = _Splitter()
        os.set_blocking(descriptor, wait)

    def new(self) -> Iterator[str]:
        """Yield the lines that are whole since the last call."""
        with suppress(BlockingIOError):
            while data := os.read(self._descriptor, _CHUNK):
                yield from self._splitter.lines(data)

    def close(self) -> None:
        """Leave it as it is: it belongs to another."""


class SystemdJournal:
    """What the services wrote to systemd's journal, by ``journalctl``."""

    def __init__(self, since: datetime, *, follow: bool) -> None:
        """Begin to read.

        Raises:
            FileNotFoundError: there is no ``journalctl``, so no systemd.
        """
        command = ["journalctl", "--quiet", "--no-pager", "--output=cat"]
        command += [f"--unit={unit}" for unit in _UNITS]
        command.append(f"--since=@{since.timestamp():.0f}")
        command += ["--follow", "--no-tail"] if follow else []
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        self._pipe = Pipe(self._process.stdout.fileno(), wait=not follow)

    def new(self) -> Iterator[str]:
        """Yield the lines that are whole since the last call."""
        return self._pipe.new()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        self._process.stdout.close()


def _unreadable(path: Path, error: OSError) -> CredspecError:
    kind = NotPermittedError if isinstance(error, PermissionError) else CredspecError
    return kind.of(
        "log-unreadable",
        error.strerror or str(error),
        where=str(path),
        remedy="run it as root, who alone may read the audit log",
    )
