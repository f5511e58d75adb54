"""Writes the bill of materials (SBOM) of a package or an image, as CycloneDX 1.6 in JSON.

The Python distributions are found by cyclonedx-py. Added are the libraries that wheels bring along,
as their own bills of materials say (PEP 770), and Debian packages as dpkg describes them. The same
input gives the same bytes, with the time of SOURCE_DATE_EPOCH. Needs `requirements/package.lock`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

_PRINT_PATHS = "import json, sys; json.dump(sys.path, sys.stdout)"
_NAMESPACE = uuid.UUID("5b1e9a53-6a0f-4c39-9a35-3b8b1f4c7f2e")


def main() -> None:
    """Write the document that the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", type=Path, required=True, help="interpreter to look into")
    parser.add_argument("--project", default="credspec", help="distribution that has the version")
    parser.add_argument("--name", required=True, help="name of what is described")
    parser.add_argument("--type", choices=("application", "container", "library"), required=True)
    parser.add_argument(
        "--debian-status", type=Path, help="dpkg's status file, or a folder of such"
    )
    parser.add_argument("--debian-release", type=Path, help="os-release of that Debian")
    parser.add_argument(
        "--debian-package", action="append", help="only this one (again for more), not all"
    )
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    bom = python_bom(options.python)
    for component in list(bom.components):
        component.components.update(bundled_components(options.python, component))
    if options.debian_status is not None:
        release = os_release(options.debian_release or Path("/etc/os-release"))
        found = list(debian_components(options.debian_status, release, options.debian_package))
        bom.components.update(found)
    about = main_component(bom, options.name, ComponentType(options.type), options.project)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(document(bom, about))


def python_bom(interpreter: Path) -> Bom:
    """Return what cyclonedx-py finds in an environment."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible"]
    command += ["--of", "JSON", "--sv", "1.6", "--no-validate", str(interpreter)]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    bom: Bom = Bom.from_json(data=json.loads(found))  # type: ignore[attr-defined]
    return bom


def bundled_components(interpreter: Path, distribution: Component) -> Iterator[Component]:
    """Yield what a wheel brings along, such as OpenSSL, from its own bills of materials."""
    folder = f"{re.sub('[-.]', '_', distribution.name)}-{distribution.version}.dist-info"
    seen = set()
    for path in import_paths(interpreter):
        for file in sorted((path / folder / "sboms").glob("*.json")):
            for entry in json.loads(file.read_text("utf-8")).get("components", []):
                version = str(entry.get("version", ""))
                if (entry["name"], version) in seen:
                    continue
                seen.add((entry["name"], version))
                purl = entry.get("purl")
                yield Component(
                    name=entry["name"],
                    version=version,
                    type=ComponentType.LIBRARY,
                    bom_ref=f"{distribution.bom_ref.value}/{entry['name']}@{version}",
                    purl=PackageURL.from_string(purl) if purl else None,
                    hashes=[
                        HashType(alg=HashAlgorithm(each["alg"]), content=each["content"])
                        for each in entry.get("hashes", [])
                    ],
                )


def import_paths(interpreter: Path) -> list[Path]:
    """Return where an interpreter imports from."""
    found = subprocess.run(
        [str(interpreter), "-c", _PRINT_PATHS], check=True, capture_output=True, text=True
    ).stdout
    return [Path(path) for path in json.loads(found)]


def os_release(path: Path) -> Mapping[str, str]:
    """Return the fields of an os-release file."""
    lines = (line.partition("=") for line in path.read_text("utf-8").splitlines())
    return {name: value.strip("\"'") for name, _, value in lines}


def debian_components(
    status: Path, release: Mapping[str, str], names: Iterable[str] | None
) -> Iterator[Component]:
    """Yield the operating system and its installed packages, only some if `names` are given."""
    distribution, number = release["ID"], release["VERSION_ID"]
    yield Component(
        name=distribution,
        version=number,
        type=ComponentType.OPERATING_SYSTEM,
        bom_ref=f"os:{distribution}@{number}",
        description=release.get("PRETTY_NAME"),
    )
    files = sorted(status.iterdir()) if status.is_dir() else [status]
    packages = {
        fields["Package"]: fields
        for file in files
        for fields in map(fields_of, file.read_text("utf-8").split("\n\n"))
        if fields.get("Status", "install ok installed").endswith(" installed")
        and "Package" in fields
    }
    wanted = sorted(packages if names is None else names)
    if missing := [name for name in wanted if name not in packages]:
        sys.exit(f"not in {status}: {', '.join(missing)}")
    for name in wanted:
        fields = packages[name]
        version, architecture = fields["Version"], fields["Architecture"]
        qualifiers = {"arch": architecture, "distro": f"{distribution}-{number}"}
        # "Source: NAME (VERSION)", where either is not the package's own.
        source = fields.get("Source", name).split()
        source_version = source[1].strip("()") if len(source) > 1 else version
        yield Component(
            name=name,
            version=version,
            type=ComponentType.LIBRARY,
            bom_ref=f"deb:{name}@{version}",
            purl=PackageURL("deb", distribution, name, version, qualifiers),
            properties=[
                Property(name="debian:source", value=source[0]),
                Property(name="debian:source-version", value=source_version),
            ],
        )


def fields_of(paragraph: str) -> dict[str, str]:
    """Return the fields of a paragraph of dpkg's, of those on several lines the first one."""
    lines = (line for line in paragraph.splitlines() if line[:1].strip())
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def main_component(bom: Bom, name: str, kind: ComponentType, project: str) -> Component:
    """Say what the document is about, and that it has all components."""
    version = next((each.version for each in bom.components if each.name == project), None)
    if version is None:
        sys.exit(f"{project} is not installed there")
    about = Component(name=name, version=version, type=kind, bom_ref=f"{name}@{version}")
    bom.metadata.component = about
    # The interpreter's own package is not what depends on all others.
    bom.register_dependency(about, list(bom.components))
    return about


def document(bom: Bom, about: Component) -> str:
    """Return the document as text, valid and always the same.

    Raises:
        SystemExit: if it would not be valid.
    """
    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    bom.metadata.timestamp = (
        datetime.now(UTC) if not seconds else datetime.fromtimestamp(int(seconds), UTC)
    )
    parts = sorted(f"{each.bom_ref.value}" for each in bom.components)
    bom.serial_number = uuid.uuid5(_NAMESPACE, "\n".join([str(about.bom_ref.value), *parts]))
    text = JsonV1Dot6(bom).output_as_string(indent=2)
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if error is not None:
        sys.exit(f"not valid CycloneDX: {error}")
    loaded: dict[str, Any] = json.loads(text)
    return json.dumps(loaded, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    main()
