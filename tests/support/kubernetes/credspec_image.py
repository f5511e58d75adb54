"""An image of credspec for a test cluster, of this checkout and this machine's Python.

It has what the chart asks of the product's image: the command, and the programs of its probes; and
the programs of the client image, by which tests look around in it.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import credspec
from credspec.lab.client_image import write_client_image
from support.engines.container_image import image_archive

NAME = "docker.io/library/credspec-kubernetes"
_PREFIX = "usr/lib/credspec"
_EXTRAS = frozenset({"host", "kubernetes"})
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[([^]]*)\])?")
_MARKER = re.compile(r"extra\s*==\s*[\"']([^\"']+)[\"']")
_LIBRARY = re.compile(r"(?:=>\s+)?(/\S+)\s+\(0x")
# Of Python's own library, what no service imports.
_NOT_IN_IMAGE = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "lib2to3"}
    | {"ensurepip", "turtledemo", "pydoc_data"}
)
_COMMAND = """#!/usr/lib/credspec/bin/python3
import sys
from credspec.cli.start import main
sys.exit(main())
"""
_PROBE = Path(__file__).parents[3] / "packaging/images/healthcheck.py"


def credspec_image(tag: str) -> bytes:
    """Return the image as a file that engines load."""
    layer = io.BytesIO()
    write_client_image(layer)
    return image_archive(
        layer.getvalue(),
        f"{NAME}:{tag}",
        [],
        entrypoint=[f"/{_PREFIX}/bin/credspec"],
        more_layers=[_credspec_layer()],
    )


def _credspec_layer() -> bytes:
    interpreter = Path(sys.executable).resolve()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = f"{_PREFIX}/lib/{version}/site-packages"
    library = Path(sysconfig.get_path("stdlib", vars={"base": sys.base_prefix}))
    files = {str(interpreter)[1:]: interpreter}
    files |= {str(path)[1:]: path for path in _below(library)}
    own = Path(credspec.__file__).parent
    files |= {f"{packages}/credspec/{path.relative_to(own)}": path for path in _below(own)}
    files |= {f"{packages}/{name}": path for name, path in _packages()}
    binaries = [path for path in files.values() if ".so" in path.suffixes or path == interpreter]
    files |= {str(path)[1:]: path for path in _libraries(binaries)}
    texts = {
        f"{_PREFIX}/bin/credspec": _COMMAND,
        f"{_PREFIX}/pyvenv.cfg": f"home = {interpreter.parent}\n",
        f"{_PREFIX}/healthcheck.py": _PROBE.read_text("utf-8"),
    }
    links = {"usr/bin/python3": str(interpreter), f"{_PREFIX}/bin/python3": str(interpreter)}
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        names = [*files, *texts, *links]
        for parent in sorted({str(each) for name in names for each in Path(name).parents} - {"."}):
            _add(tar, parent, tarfile.DIRTYPE)
        for name, path in files.items():
            # Times are kept: those of compiled files must be those of their sources.
            _add(tar, name, content=path.read_bytes(), time=path.stat().st_mtime)
        for name, text in texts.items():
            _add(tar, name, content=text.encode())
        for name, target in links.items():
            _add(tar, name, tarfile.SYMTYPE, target=target)
    return layer.getvalue()


def _add(
    tar: tarfile.TarFile,
    name: str,
    kind: bytes = tarfile.REGTYPE,
    *,
    content: bytes = b"",
    target: str = "",
    time: float = 0,
) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime, info.linkname = kind, 0o755, time, target
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _below(directory: Path) -> Iterator[Path]:
    for path in directory.iterdir():
        if path.name in _NOT_IN_IMAGE or path.name.startswith("config-"):
            continue
        if path.is_dir():
            yield from _below(path)
        elif path.is_file():
            yield path


def _packages() -> Iterator[tuple[str, Path]]:
    """The files of what credspec needs with its extras, by their names in site-packages."""
    wanted = [("credspec", _EXTRAS)]
    seen: set[tuple[str, frozenset[str]]] = set()
    while wanted:
        name, extras = wanted.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # for another system
        for line in found.requires or ():
            requirement, _, marker = line.partition(";")
            extra = _MARKER.search(marker)
            if extra is not None and extra[1] not in extras:
                continue
            match = _REQUIREMENT.match(requirement)
            assert match is not None, line
            of_it = frozenset(filter(None, (match[2] or "").replace(" ", "").split(",")))
            wanted.append((match[1], of_it))
        if name == "credspec":
            yield from _metadata(found)
            continue
        for file in found.files or ():
            path = Path(str(found.locate_file(file)))
            if ".." not in file.parts and path.is_file():
                yield str(file), path


def _metadata(found: metadata.Distribution) -> Iterator[tuple[str, Path]]:
    for file in found.files or ():
        if file.parts[0].endswith(".dist-info"):
            yield str(file), Path(str(found.locate_file(file)))


def _libraries(binaries: list[Path]) -> set[Path]:
    command = ["ldd", *map(str, binaries)]
    listed = subprocess.run(command, check=False, capture_output=True, text=True).stdout
    return {Path(match) for match in _LIBRARY.findall(listed)}
