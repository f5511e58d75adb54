"""A copy of the runtime shim beside its launcher, for a host that has no credspec of its own.

A set-up that runs in a container cannot let the engine use the container's interpreter and
packages. What the shim imports is a few modules of this package and the standard library, so these
are copied to the host, whose own Python runs them.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import credspec
from credspec.errors import UsageError
from credspec.setup.engine_files import FileChange, read_file, remove_file, write_file

_CONTRACT: Final = (
    *("agent_client", "c_json", "c_library", "container_environment", "errors", "host_paths"),
    "kdc_sockets",
    *("lease", "lease_paths", "names", "selinux_label", "service_names"),
    *("spelling", "start_wait", "ticket_options"),
)
_SHIM: Final = (
    *("carriers", "container_lease", "image_root", "oci_bundle", "podman_image"),
    "runtime",
)
MODULES: Final = (
    *("credspec/__init__.py", "credspec/contract/__init__.py", "credspec/shim/__init__.py"),
    *(f"credspec/contract/{name}.py" for name in _CONTRACT),
    *(f"credspec/shim/{name}.py" for name in _SHIM),
)
"""All that the shim imports of this package."""

DIRECTORY: Final = "python"
"""Where they are, in the directory of the launcher."""


@dataclass(frozen=True, slots=True)
class HostCopy:
    """The shim's modules in `directory`, and the host's `interpreter` (Python 3.11 or newer)."""

    directory: Path
    interpreter: Path

    def apply(self, *, dry_run: bool = False) -> list[str]:
        """Copy what is not there yet or differs; return a line if anything did.

        Raises:
            UsageError: `setup-host-python`.
            CredspecError: `setup-read`, `setup-write`.
        """
        if not self.interpreter.is_absolute() or len(str(self.interpreter).split()) != 1:
            raise UsageError.of(
                "setup-host-python",
                str(self.interpreter),
                where="--host-python",
                expected="an absolute path without spaces, such as /usr/bin/python3",
            )
        source = Path(credspec.__file__).parents[1]
        present = {name: (source / name).read_bytes() for name in MODULES}
        changed = [
            name for name, data in present.items() if read_file(self.directory / name) != data
        ]
        for name in () if dry_run else changed:
            write_file(self.directory / name, present[name])
        line = FileChange.of(f"copied the runtime to {self.directory}", self.directory)
        return [line] if changed else []

    def undo(self, *, dry_run: bool = False) -> list[str]:
        """Remove the copy and what Python made of it; return a line if there was one.

        Raises:
            CredspecError: `setup-write`.
        """
        if not (self.directory / MODULES[0]).exists():
            return []
        for name in () if dry_run else MODULES:
            path = self.directory / name
            for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
                remove_file(compiled)
            remove_file(path)
        if not dry_run:
            for folder in ("credspec/shim", "credspec/contract", "credspec", "."):
                for empty in (self.directory / folder / "__pycache__", self.directory / folder):
                    with contextlib.suppress(OSError):
                        empty.rmdir()  # only if nothing else is in it
        line = f"removed the copy of the runtime in {self.directory}"
        return [FileChange.of(line, self.directory)]
