"""A real systemd as the first process of its own namespaces, with no unit but those of the test."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

# Into another root file system, if there is one; what is shared is there under the same names.
_ENTER = """
set -e
mount --make-rprivate /
if [ -n "$ROOT" ]; then
  mount --bind "$ROOT" "$ROOT"
  mount -t sysfs sysfs "$ROOT/sys"
  for path in /dev $SHARED; do
    mkdir -p "$ROOT$path"
    mount --rbind $path "$ROOT$path"
  done
  mount -t proc proc "$ROOT/proc"
  cd "$ROOT"
  pivot_root . mnt
  cd /
  umount -l /mnt
fi
"""
# Only stubs in place of the system's own units: those would clean /tmp, set sysctls and so on.
_BOOT = """
# As systemd does on a host, if not in a container.
mount --make-rshared /
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/test
mount -t tmpfs -o mode=755 tmpfs /var/log
# Of services' private directories; /tmp has the tests' files.
mount -t tmpfs -o mode=1777 tmpfs /var/tmp
for path in $(awk '$2 ~ "^/sys/fs/cgroup" {print $2}' /proc/mounts | sort -r); do
  umount -l $path
done
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs /etc/systemd/system
cd /etc/systemd/system
for name in default sysinit basic multi-user sockets shutdown umount network-online time-sync; do
  printf '[Unit]\\nDescription=stub\\nDefaultDependencies=no\\n' > $name.target
done
export container=lxc SYSTEMD_UNIT_PATH=$UNIT_PATH
unset NOTIFY_SOCKET
exec /lib/systemd/systemd --system --unit=default.target --log-target=console --show-status=no
"""


# Of two machines that share a cgroup, each would remove those of the other's services. Tests may
# have no cgroup2 mounted, so it is mounted for this command only.
_WITH_CGROUPS = """
set -e
mount --make-rprivate /
mount -t cgroup2 cgroup2 /sys/fs/cgroup
cgroup="/sys/fs/cgroup$1"
shift
"""
_IN_CGROUP = (
    _WITH_CGROUPS
    + """
mkdir -p "$cgroup"
echo 0 > "$cgroup/cgroup.procs"
umount /sys/fs/cgroup
exec "$@"
"""
)
_REMOVE_CGROUP = _WITH_CGROUPS + 'find "$cgroup" -depth -type d -exec rmdir {} +'
_NAMESPACES = ("--pid", "--mount", "--uts", "--ipc", "--cgroup")
_QUEUE_LENGTH = Path("/proc/sys/net/unix/max_dgram_qlen")


class BootedSystemd:
    """Boots at once; `run` runs commands beside its services.

    `root` is the root file system of another release, in which `shared` directories of this one
    are seen. `unit_path` are the directories of units that it reads, with colons between them.
    """

    def __init__(
        self,
        log: Path,
        root: Path | None = None,
        shared: tuple[Path, ...] = (),
        *,
        unit_path: str = "/etc/systemd/system",
    ) -> None:
        # systemd raises it, in the network namespace that it shares with the tests.
        self._queue_length = _QUEUE_LENGTH.read_text()
        self._cgroup = f"{_own_cgroup()}/credspec-machine-{uuid.uuid4().hex}"
        command = [*self._with_cgroup(_IN_CGROUP), "unshare", *_NAMESPACES]
        command += ["--fork", "--kill-child", "bash", "-c", _ENTER + _BOOT]
        into = {
            "ROOT": str(root or ""),
            "SHARED": " ".join(map(str, shared)),
            "UNIT_PATH": unit_path,
        }
        with log.open("wb") as output:
            self._unshare = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **into},
            )
        self._log = log
        self._earlier = set(_private_directories())
        self._wait_until_it_runs()

    def _with_cgroup(self, script: str) -> list[str]:
        return ["unshare", "--mount", "sh", "-c", script, "sh", self._cgroup]

    def _wait_until_it_runs(self) -> None:
        end = time.monotonic() + 120
        own = Path("/proc/self/ns/pid").readlink()
        while True:
            assert self._unshare.poll() is None, self._log.read_text()
            assert time.monotonic() < end, self._log.read_text()
            children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children")
            for child in children.read_text().split():
                self.pid = int(child)
                try:
                    if Path(f"/proc/{child}/ns/pid").readlink() == own:
                        continue  # a step before
                    state = self.run("systemctl", "is-system-running").stdout.strip()
                except OSError:
                    continue
                if state in {"running", "degraded"}:
                    return
            time.sleep(0.1)

    def run(
        self, *command: str, given: str = "", seconds: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in systemd's namespaces."""
        return subprocess.run(
            self.command(*command),
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )

    def command(self, *command: str) -> list[str]:
        """Return the command that runs a command in systemd's namespaces."""
        enter = [*self._with_cgroup(_IN_CGROUP), "nsenter", f"--target={self.pid}", *_NAMESPACES]
        return [*enter, "--", *command]

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()

    def pid_outside(self, unit: str) -> int:
        """Return the main process of a unit by its number in this namespace; 0 if there is none."""
        inside = int(self.show(unit, "MainPID") or 0)
        if not inside:
            return 0
        namespace = Path(f"/proc/{self.pid}/ns/pid").readlink()
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                lines = status.read_text().splitlines()
                same = (status.parent / "ns/pid").readlink() == namespace
            except OSError:
                continue
            numbers = next((line.split()[1:] for line in lines if line.startswith("NSpid:")), [])
            if same and numbers[-1:] == [str(inside)]:
                return int(numbers[0])
        return 0

    def kill(self, unit: str, number: signal.Signals) -> int:
        """Send a signal to the main process of a unit, which must run; return its number."""
        pid = self.pid_outside(unit)
        # 0 would be the process group of the tests, and all that started them.
        assert pid > 1, self._log.read_text()[-4000:]
        os.kill(pid, number)
        return pid

    def close(self) -> None:
        """End it and everything in it."""
        os.kill(self.pid, signal.SIGKILL)
        self._unshare.wait(60)
        _QUEUE_LENGTH.write_text(self._queue_length)
        self._remove_cgroup()
        for directory in set(_private_directories()) - self._earlier:
            shutil.rmtree(directory, ignore_errors=True)

    def _remove_cgroup(self) -> None:
        """Remove the cgroups; what was in them has just been killed, and may take a moment."""
        end = time.monotonic() + 60
        while subprocess.run(
            self._with_cgroup(_REMOVE_CGROUP), check=False, capture_output=True
        ).returncode:
            assert time.monotonic() < end, self._cgroup
            time.sleep(0.1)


def _own_cgroup() -> str:
    """Return the cgroup of this process: a path without a slash at its end."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    (own,) = (line.removeprefix("0::") for line in lines if line.startswith("0::"))
    return own.rstrip("/")


def _private_directories() -> Iterator[Path]:
    """Return what PrivateTmp= has made, which a machine that is not shut down leaves behind."""
    return Path("/tmp").glob("systemd-private-*-credspec-*")  # noqa: S108 - systemd's own name
