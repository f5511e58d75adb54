"""Providers that are programs: JSON on their standard input and output.

They get ``{"version": 1, "input": "..."}`` and answer with ``username``, ``password`` and
``domainName``, or with ``error`` and a text for people, which is logged.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any, ClassVar, Final

from credspec.config_table import Key, Table
from credspec.errors import NotPermittedError, PermanentFaultError, UnreachableError
from credspec.providers import program_supervisor
from credspec.providers.answers import MAX_ANSWER_BYTES, account_from_json, refuse_answer
from credspec.providers.deadline import Deadline
from credspec.providers.private_file import check_program_file
from credspec.providers.provider import HostAccount
from credspec.providers.provider_table import TEXTS, ProviderTable, read_table

_ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
_MAX_ERROR: Final = 200  # characters
_END_SECONDS: Final = 6.0  # longer than the supervisor takes to end all


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramSettings(ProviderTable):
    """Settings of `ProgramProvider`: its argument vector."""

    table: ClassVar = Table(
        "providers.NAME",
        "A program as provider; NAME is chosen here, of lower-case letters, digits and dashes.",
    )

    command: Annotated[
        tuple[str, ...],
        Key(
            kind=TEXTS,
            secret=True,
            meaning="The program with an absolute path, and its arguments ([how it is "
            "called](providers.md#writing-a-provider)).",
            reloaded=True,
        ),
    ]


class ProgramProvider:
    """A program of the configuration.

    It runs without a shell, with a clean environment, in ``/``. What is left of all that it started
    is killed when it ends or when its time is up, also what went into a session of its own (see
    `credspec.providers.program_supervisor`). What it writes to standard error is dropped.
    """

    def __init__(self, name: str, settings: Mapping[str, Any], seconds: float) -> None:
        self._command = read_table(ProgramSettings, settings, f"providers.{name}").command
        self._where = f"provider {name}"
        self._seconds = seconds

    def host_account(self, plugin_input: str) -> HostAccount:
        """Run the program and return the account that it names.

        Raises:
            NotPermittedError: `host-account-program`: it is missing, or others than root may write
                or replace it.
            UnreachableError: `host-account-timeout`.
            CredspecError: `host-account-answer`, `host-account-refused`, `host-account-invalid`.
        """
        self._check_program()
        deadline = Deadline(self._seconds)
        question = json.dumps({"version": 1, "input": plugin_input}).encode() + b"\n"
        control, other_end = socket.socketpair()
        with control:
            with other_end:
                process = self._started(other_end)
            try:
                answer = self._talk(process, question, deadline)
                self._check_started(control)
            finally:
                # That is the supervisor's sign to end all that is left.
                control.close()
                _wait_for(process)
                for stream in (process.stdin, process.stdout):
                    if stream is not None:
                        stream.close()
        return self._account(answer)

    def _started(self, control: socket.socket) -> subprocess.Popen[bytes]:
        python = [sys.executable, "-I", "-S", "-B", program_supervisor.__file__]
        try:
            return subprocess.Popen(
                [*python, str(control.fileno()), *self._command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=[control.fileno()],
                env=_ENVIRONMENT,
                cwd="/",
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            raise self._unusable(error.strerror or "cannot be started") from None

    def _check_started(self, control: socket.socket) -> None:
        control.setblocking(False)
        try:
            said = control.recv(16)
        except OSError:
            return
        if said.isdigit():
            raise self._unusable(os.strerror(int(said)))

    def _talk(self, process: subprocess.Popen[bytes], question: bytes, deadline: Deadline) -> bytes:
        assert process.stdin is not None  # noqa: S101 - narrows for the type checker
        assert process.stdout is not None  # noqa: S101 - narrows for the type checker
        answer = b""
        for stream in (process.stdin, process.stdout):
            os.set_blocking(stream.fileno(), False)
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdin, selectors.EVENT_WRITE)
            selector.register(process.stdout, selectors.EVENT_READ)
            while selector.get_map():
                try:
                    ready = selector.select(deadline.left())
                except TimeoutError:
                    raise UnreachableError.of(
                        "host-account-timeout",
                        f"no answer within {deadline.seconds:g} s",
                        where=self._where,
                    ) from None
                for key, _ in ready:
                    if key.fileobj is process.stdin:
                        question = _write(process.stdin, question)
                        if not question:
                            selector.unregister(process.stdin)
                            process.stdin.close()
                        continue
                    chunk = os.read(process.stdout.fileno(), MAX_ANSWER_BYTES)
                    answer += chunk
                    if len(answer) > MAX_ANSWER_BYTES:
                        refuse_answer(self._where, f"more than {MAX_ANSWER_BYTES} bytes")
                    if not chunk:
                        selector.unregister(process.stdout)
                        if not process.stdin.closed:
                            selector.unregister(process.stdin)
        return answer

    def _account(self, answer: bytes) -> HostAccount:
        try:
            document = json.loads(answer)
        except (ValueError, RecursionError):
            document = None
        if isinstance(document, dict) and isinstance(document.get("error"), str):
            raise PermanentFaultError.of(
                "host-account-refused", document["error"][:_MAX_ERROR], where=self._where
            )
        return account_from_json(answer, self._where)

    def _check_program(self) -> None:
        if not self._command or not self._command[0].startswith("/"):
            raise self._unusable("command is not an argument vector with an absolute path")
        try:
            check_program_file(Path(self._command[0]), self._where)
        except NotPermittedError as error:
            raise self._unusable(error.problems[0].found) from None

    def _unusable(self, found: str) -> NotPermittedError:
        return NotPermittedError.of(
            "host-account-program",
            found,
            where=self._where,
            expected="a program owned by root that only root may write or replace, without links",
            remedy="chown root, chmod 755, and name it by its real path",
        )


def _wait_for(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _write(stream: IO[bytes], data: bytes) -> bytes:
    """Write what fits and return the rest; nothing if the reader has gone."""
    try:
        return data[os.write(stream.fileno(), data) :]
    except BlockingIOError:
        return data
    except BrokenPipeError:
        return b""
