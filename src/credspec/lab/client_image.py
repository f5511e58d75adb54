"""A small container image with Kerberos clients, made from this machine's own programs.

No registry, no download: the programs, the libraries they load, and the few files of /etc that
make them work, as a tar file for ``docker import``.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Final

from credspec.errors import UsageError

PROGRAMS: Final = {
    "sh": "dash",
    "cat": "coreutils",
    "env": "coreutils",
    "id": "coreutils",
    "ls": "coreutils",
    "sleep": "coreutils",
    "touch": "coreutils",
    "dd": "coreutils",
    "ln": "coreutils",
    "mv": "coreutils",
    "rm": "coreutils",
    "stat": "coreutils",
    "getent": "libc-bin",
    "klist": "krb5-user",
    "kvno": "krb5-user",
    "ldapsearch": "ldap-utils",
    "ldapwhoami": "ldap-utils",
    "psql": "postgresql-client",
}
"""Programs of the image, and the Debian package that brings each."""

_SASL_DIRECTORIES: Final = ("/usr/lib/x86_64-linux-gnu/sasl2", "/usr/lib/aarch64-linux-gnu/sasl2")
_SASL_MECHANISMS: Final = re.compile(r"libgssapiv2\.so.*")
_LIBRARY: Final = re.compile(r"(?:=>\s+)?(/\S+)\s+\(0x")
_FILES: Final = {
    "etc/passwd": "root:x:0:0:root:/:/bin/sh\napp:x:1000:1000:app:/:/bin/sh\n",
    "etc/group": "root:x:0:\napp:x:1000:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    # The name that was asked for is the one to authenticate, whatever reverse DNS says.
    "etc/ldap/ldap.conf": "SASL_NOCANON on\nSASL_MECH GSSAPI\n",
}
_DIRECTORIES: Final = {"tmp": 0o1777, "run": 0o755, "proc": 0o555, "sys": 0o555, "dev": 0o755}


def write_client_image(target: IO[bytes]) -> None:
    """Write the image's root file system to `target`, as an uncompressed tar.

    Raises:
        UsageError: `lab-program-missing`, with all programs that are not installed.
    """
    paths = _programs()
    libraries = _libraries([*paths.values(), *_sasl_plugins()])
    with tarfile.open(fileobj=target, mode="w|") as tar:
        names = [*_FILES, *(f"bin/{name}" for name in paths)]
        names += [str(path).lstrip("/") for path in [*libraries, *_sasl_plugins()]]
        for name, mode in (_parents(names) | _DIRECTORIES).items():
            _add_directory(tar, name, mode)
        for name, content in _FILES.items():
            _add_bytes(tar, name, content.encode())
        for name, path in paths.items():
            _add_file(tar, f"bin/{name}", path)
        for path in [*libraries, *_sasl_plugins()]:
            _add_file(tar, str(path).lstrip("/"), path)


def _parents(names: Iterable[str]) -> dict[str, int]:
    # Left to engines, some make them for root only.
    parents = {parent for name in names for parent in Path(name).parents if parent.name}
    return {str(parent): 0o755 for parent in sorted(parents)}


def _programs() -> dict[str, Path]:
    found: dict[str, Path] = {}
    missing: list[str] = []
    for name, package in PROGRAMS.items():
        # Debian's psql is a wrapper in Perl; the real one stands beside the server.
        versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
        path = str(versions[0]) if versions else shutil.which(name)
        if path is None:
            missing.append(f"{name} ({package})")
        else:
            found[name] = Path(os.path.realpath(path))
    if missing:
        raise UsageError.of(
            "lab-program-missing",
            f"not installed: {', '.join(missing)}",
            where="client image",
            remedy="apt-get install " + " ".join(sorted({PROGRAMS[m.split()[0]] for m in missing})),
        )
    return found


def _sasl_plugins() -> list[Path]:
    return [
        path
        for directory in map(Path, _SASL_DIRECTORIES)
        if directory.is_dir()
        for path in sorted(directory.iterdir())
        if _SASL_MECHANISMS.fullmatch(path.name)
    ]


def _libraries(binaries: Iterable[Path]) -> list[Path]:
    listed = subprocess.run(
        ["ldd", *map(str, binaries)], check=True, capture_output=True, text=True
    ).stdout
    return sorted({Path(match) for match in _LIBRARY.findall(listed)})


def _add_directory(tar: tarfile.TarFile, name: str, mode: int) -> None:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    info.mode = mode
    tar.addfile(info)


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mode = mode
    tar.addfile(info, io.BytesIO(content))


def _add_file(tar: tarfile.TarFile, name: str, path: Path) -> None:
    # Links are followed: the image holds each library under the name that programs ask for.
    _add_bytes(tar, name, path.read_bytes(), 0o755)
