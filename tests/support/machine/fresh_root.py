"""A fresh Debian in a folder, entered with namespaces of its own; stdlib only."""

from __future__ import annotations

import json
import math
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from support.machine import machine_state
from support.machine.debian_bootstrap import bootstrap_command

PACKAGES = ("git", "make", "python3", "ca-certificates")
"""All that the README assumes to be there."""

_FIRST_PROCESS = """
import signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # reaps what is left to it
print(flush=True)
while True:
    signal.pause()
"""
# The mounts of a booted Debian, all shared as systemd makes them, and the folder as `/`.
_ENTER = """
set -e
cd "$1"
mount --bind . .
cd "$1"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /sys/fs/cgroup sys/fs/cgroup
mount -t tmpfs -o mode=755,nosuid tmpfs dev
for name in null zero full random urandom tty fuse net/tun kmsg; do
    [ -e /dev/$name ] || continue
    mkdir -p "$(dirname dev/$name)"
    touch dev/$name
    mount --bind /dev/$name dev/$name
done
mkdir dev/pts dev/shm dev/mqueue
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for number in 0:stdin 1:stdout 2:stderr; do ln -s fd/${number%%:*} dev/${number#*:}; done
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs dev/shm
mount -t mqueue mqueue dev/mqueue
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs run
mkdir -m 1777 run/lock
hostname fresh
pivot_root . mnt
cd /
umount -l /mnt
mount --make-rshared /
exec env -i /usr/bin/python3 -c "$2"
"""
_ENDS_WITH_US = ("setpriv", "--pdeathsig", "KILL")
_TRANSPORT = re.compile(r"Acquire::(https?|ftp|socks|ForceIPv|Check-|Retries|Queue)", re.IGNORECASE)
_DNS = "10.0.2.3"  # where slirp4netns answers and asks this machine's own resolver
_LOOPBACK = re.compile(r"(?<=//)(127\.0\.0\.1|localhost)\b|(?<=@)(127\.0\.0\.1|localhost)\b")
_MACHINE = "10.0.2.2"  # where slirp4netns has this machine's loopback address
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy")
_INDEXES = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "npm_config_registry")
_AUTHORITIES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
_GRACE_SECONDS = 120.0


class FreshRoot:
    """A Debian root file system and the namespaces in which it is a machine of its own.

    Mounts, processes, host name, IPC and network are its own; the kernel and cgroups are not.
    `tell` gets all that is printed, in pieces.
    """

    def __init__(self, release: str, tell: Callable[[bytes], None], folder: Path | None) -> None:
        self.release, self._tell = release, tell
        self.is_new = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix=f"credspec-try-{release}-", dir=_TMP))
        self._first: subprocess.Popen[bytes] | None = None
        self._network: subprocess.Popen[bytes] | None = None

    def bootstrap(self, packages: tuple[str, ...] = PACKAGES) -> int:
        """Make the root file system; return the exit status."""
        suites = ("", "-updates", "-security")
        return self._run(bootstrap_command(self.release, packages, self.folder, suites=suites))

    def take_over(self) -> None:
        """Take over what this machine needs to reach registries of packages."""
        etc = self.folder / "etc"
        for name in ("etc/ssl/certs", "usr/local/share/ca-certificates"):
            if Path("/", name).is_dir():
                # Links there would lead to this machine's own files.
                shutil.rmtree(self.folder / name, ignore_errors=True)
                copy = ["cp", "--recursive", "--dereference", f"/{name}", str(self.folder / name)]
                subprocess.run(copy, check=False, stderr=subprocess.DEVNULL)
        bundle = etc / "ssl/certs/ca-certificates.crt"
        for name in _AUTHORITIES:
            given = os.environ.get(name, "")
            if given and not given.startswith("/etc/ssl/") and Path(given).is_file():
                with bundle.open("ab") as file:
                    file.write(b"\n" + Path(given).read_bytes())
        if Path("/etc/pip.conf").exists():
            shutil.copy("/etc/pip.conf", etc)
        settings = subprocess.run(
            ["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=False
        ).stdout.splitlines()
        kept = [from_inside(line) for line in settings if _TRANSPORT.match(line)]
        (etc / "apt/apt.conf.d/90taken-over").write_text("\n".join(kept) + "\n")
        hosts = Path("/etc/hosts").read_text()
        (etc / "hosts").write_text(f"{hosts.rstrip()}\n127.0.1.1 fresh\n")
        resolver = Path("/etc/resolv.conf").read_text().splitlines()
        other = [line for line in resolver if line.split()[:1] in (["search"], ["options"])]
        (etc / "resolv.conf").write_text("\n".join([f"nameserver {_DNS}", *other]) + "\n")

    def clone(self, checkout: Path) -> int:
        """Put the committed HEAD of a checkout to /root/credspec; return the exit status."""
        target = self.folder / "root/credspec"
        git = ["git", "-c", "safe.directory=*", "-C"]
        if not target.exists():
            return self._run([*git, str(checkout), "clone", "-q", "--no-local", ".", str(target)])
        head = subprocess.run(
            [*git, str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        fetched = self._run([*git, str(target), "fetch", "-q", str(checkout), head])
        return fetched or self._run([*git, str(target), "reset", "-q", "--hard", head])

    def start(self) -> None:
        """Start the first process in namespaces of its own, and connect them to the network."""
        namespaces = ("--mount", "--pid", "--fork", "--uts", "--ipc", "--net", "--kill-child")
        self._first = subprocess.Popen(
            [
                *(*_ENDS_WITH_US, "unshare", *namespaces),
                *("sh", "-c", _ENTER, "enter", str(self.folder), _FIRST_PROCESS),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._first.stdout is not None
        if self._first.stdout.readline() != b"\n":
            raise OSError("the fresh root cannot be entered, see above")
        ready, given = os.pipe()
        self._network = subprocess.Popen(
            [
                *(*_ENDS_WITH_US, "slirp4netns", "--configure"),
                *(f"--ready-fd={given}", "--mtu=65520", str(self.pid), "tap0"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(given,),
            start_new_session=True,
        )
        os.close(given)
        with os.fdopen(ready, "rb") as pipe:
            if not pipe.read(1):
                assert self._network.stderr is not None
                raise OSError(f"slirp4netns: {self._network.stderr.read().decode().strip()}")

    @property
    def pid(self) -> int:
        """The number of its first process on this machine."""
        assert self._first is not None
        children = Path(f"/proc/{self._first.pid}/task/{self._first.pid}/children").read_text()
        return int(children.split()[0])

    def command(self, *command: str) -> list[str]:
        """Return a command as it is run inside."""
        namespaces = ("--mount", "--pid", "--uts", "--ipc", "--net")
        variables = {
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "TERM": os.environ.get("TERM", "dumb"),
        }
        names = [*_PROXIES, *(name.upper() for name in _PROXIES), *_INDEXES]
        variables |= {n: from_inside(os.environ[n]) for n in names if n in os.environ}
        settings = [f"{name}={value}" for name, value in variables.items()]
        return [
            "nsenter",
            f"--target={self.pid}",
            *namespaces,
            "--",
            "env",
            "-i",
            *settings,
            *command,
        ]

    def shell(self, line: str) -> int:
        """Run a line in the clone as a user types it; return the exit status."""
        return self._run(self.command("sh", "-c", f"cd /root/credspec && {line}"))

    def run(self, *command: str) -> int:
        """Run a command inside; return the exit status."""
        return self._run(self.command(*command))

    def state(self) -> dict[str, Any]:
        """Return what `machine_state` says inside."""
        program = Path(machine_state.__file__).read_bytes()
        command = self.command("python3", "-")
        return json.loads(subprocess.run(command, input=program, stdout=-1, check=True).stdout)

    def _run(self, command: list[str]) -> int:
        """Run a command and tell what it prints; on Ctrl-C it may take down what it started."""
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            self._tell_until_it_ends(process)
            return process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGINT)
            with suppress(BaseException):  # a second Ctrl-C ends the wait
                self._tell_until_it_ends(process, _GRACE_SECONDS)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise

    def _tell_until_it_ends(
        self, process: subprocess.Popen[bytes], seconds: float = math.inf
    ) -> None:
        """Tell what a process prints; something that it has left running may hold its output."""
        assert process.stdout is not None
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            ended = process.poll() is not None
            if select.select([process.stdout], [], [], 0.0 if ended else 0.5)[0]:
                piece = os.read(process.stdout.fileno(), 65536)
                if not piece:
                    return
                self._tell(piece)
            elif ended:
                return

    def close(self, *, keep: bool) -> None:
        """End all that runs inside, and remove the folder unless it is kept."""
        for process in (self._network, self._first):
            if process is not None:
                process.kill()
                process.wait()
        self._first = self._network = None
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)


def from_inside(setting: str) -> str:
    """Return a setting with the URLs of this machine's own services as they are inside."""
    return _LOOPBACK.sub(_MACHINE, setting)


_TMP = "/var/tmp"  # noqa: S108 - a file system of the disk, with room
