"""A PostgreSQL server in a lab that takes Kerberos logons of the domain's accounts."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from credspec.errors import CredspecError

USER: Final = "postgres"
DATABASE: Final = "demo"
_INITDB_OPTIONS: Final = ("--auth=reject", "--no-sync", "--encoding=UTF8", "--locale=C")


def find_programs() -> Path | None:
    """Return the directory of the newest installed server's programs, or None."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"),
        key=lambda path: int(path.parts[-3]) if path.parts[-3].isdigit() else 0,
    )
    return found[-1].parent if found else None


def initialise(
    programs: Path, data: Path, *, realm: str, roles: Iterable[str], keytab: Path
) -> None:
    """Make a database cluster in `data` that takes Kerberos logons only.

    Raises:
        CredspecError: `lab-postgres`.
    """
    data.mkdir(mode=0o700)
    shutil.chown(data, USER, USER)
    shutil.chown(keytab, USER, USER)
    _run(
        [str(programs / "initdb"), f"--pgdata={data}", f"--username={USER}", *_INITDB_OPTIONS],
        data,
    )
    (data / "pg_hba.conf").write_text(
        f"host all all all gss include_realm=0 krb_realm={realm}\n", "utf-8"
    )
    statements = [f"CREATE DATABASE {DATABASE}"]
    statements += [f'CREATE ROLE "{role}" LOGIN' for role in roles]
    # One statement a line is what the single-user mode takes.
    _run(
        [str(programs / "postgres"), "--single", "-D", str(data), USER],
        data,
        "".join(f"{statement};\n" for statement in statements),
    )


def server_command(programs: Path, data: Path, *, address: str, keytab: Path) -> list[str]:
    """Return the command of the server in the foreground."""
    settings = {
        "listen_addresses": address,
        "krb_server_keyfile": str(keytab),
        "unix_socket_directories": "",
        "fsync": "off",
        # Files of its own, not the host's /dev/shm, which others clean up.
        "dynamic_shared_memory_type": "mmap",
        "max_connections": "50",
    }
    command = [str(programs / "postgres"), "-D", str(data)]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    return command


def _run(command: list[str], directory: Path, text: str = "") -> None:
    result = subprocess.run(
        command,
        input=text,
        cwd=directory,
        capture_output=True,
        text=True,
        user=USER,
        group=USER,
        extra_groups=[],
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        check=False,
    )
    # The single-user mode reports failed statements, but not by its status.
    if result.returncode != 0 or "ERROR:" in result.stderr:
        raise CredspecError.of("lab-postgres", result.stderr.strip()[-500:], where=command[0])
