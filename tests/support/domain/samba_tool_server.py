"""Commands of samba-tool forked from a process that has imported them.

An import takes most of the time that samba-tool takes, and tests run hundreds of its commands. What
runs is samba-tool's own code on the domain's database as ever, in a process of its own.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import threading
from collections.abc import Sequence
from typing import Final

from credspec.lab.samba_commands import interpreter

# `samba.netcmd` imports a group of commands when the first of them runs.
_PROGRAM: Final = """
import importlib, json, os, signal, sys, traceback
from samba.netcmd.main import samba_tool
for name in ("computer", "dns", "domain", "group", "service_account", "spn", "user"):
    importlib.import_module("samba.netcmd." + name)
signal.signal(signal.SIGINT, signal.SIG_IGN)
for line in sys.stdin:
    arguments, environment, directory = json.loads(line)
    outputs = [os.memfd_create(name) for name in ("stdout", "stderr")]
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(outputs[0], 1)
            os.dup2(outputs[1], 2)
            os.chdir(directory)
            os.environ.clear()
            os.environ.update(environment)
            sys.argv = ["samba-tool", *arguments]
            status = samba_tool(*arguments) or 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status & 255)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    texts = []
    for output in outputs:
        size = os.lseek(output, 0, os.SEEK_END)
        texts.append(os.pread(output, size, 0).decode("utf-8", "replace"))
        os.close(output)
    print(json.dumps([status, *texts]), flush=True)
"""


class SambaToolServer:
    """The process that commands are forked from, one at a time; it ends with its maker."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._process = subprocess.Popen(
            [interpreter(), "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._process.returncode = 0  # not waited for, and not complained about

    def run(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run ``samba-tool`` with arguments; what it says is captured."""
        request = json.dumps([[*arguments], dict(os.environ), os.getcwd()])  # noqa: PTH109
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with self._turn:
            stdin.write(f"{request}\n")
            stdin.flush()
            answer = stdout.readline()
        status, *texts = json.loads(answer)
        return subprocess.CompletedProcess(["samba-tool", *arguments], status, *texts)


@functools.cache
def _server() -> SambaToolServer:
    return SambaToolServer()


def run_program(command: list[str], text: str | None) -> subprocess.CompletedProcess[str]:
    """Run a program as `credspec.lab.domain.run_program` does, and samba-tool by the server."""
    if command[0] == "samba-tool" and text is None:
        return _server().run(command[1:])
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)
