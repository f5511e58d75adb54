"""Makes the Debian packages of what was staged; stdlib only, with dpkg-dev and lintian."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

RELEASE_NAMES = {"bookworm": "deb12", "trixie": "deb13", "noble": "ubuntu24.04"}
NO_LAB = ("noble",)
"""Releases whose Samba is too old to be a domain controller with gMSAs."""
MAINTAINER = "The credspec developers <credspec@localhost.invalid>"
SUMMARIES = {
    "credspec": "group Managed Service Accounts for Linux containers",
    "credspec-lab": "throwaway Active Directory domains to try credspec with",
    "credspec-extras": "secret stores and the credentials-fetcher interface for credspec",
}
DESCRIPTIONS = {
    "credspec": """\
An agent that reads the password of a group Managed Service Account (gMSA)
from Active Directory and gives containers its Kerberos tickets, chosen by
the same credential specs as on Windows. It works with Docker, Podman and
containerd.
.
After the installation, "credspec setup" starts the agent and registers the
container engines.""",
    "credspec-lab": """\
The commands below "credspec lab" bring up a real Samba domain in namespaces
of its own, with gMSAs, for development and tests. It makes domain
controllers, so it is not meant for production hosts.""",
    "credspec-extras": """\
What the agent needs to get a host's account from HashiCorp Vault, AWS
Secrets Manager or Azure Key Vault, and to stand in for credentials-fetcher
on Amazon ECS (gRPC).""",
}
_LAB_DEPENDS = (
    *("samba (>= 2:4.21)", "samba-ad-dc (>= 2:4.21)", "samba-ad-provision (>= 2:4.21)"),
    *("samba-dsdb-modules (>= 2:4.21)", "samba-vfs-modules (>= 2:4.21)", "winbind (>= 2:4.21)"),
    *("ldb-tools", "krb5-user", "ldap-utils", "iproute2", "iptables", "postgresql"),
)
_LIBRARIES = (r"libldap(?:-2\.5)?\.so\.\d", r"libsasl2\.so\.2")
"""Loaded at run time (credspec.directory.libldap), so that no program tells of them."""


def debian_version(version: str, release: str) -> str:
    """Return the version of the package; a newer release's is newer, for its upgrade."""
    ordered = re.sub(r"\.?(dev|a|b|rc)(\d+)", r"~\1\2", version)
    return f"{ordered}-1~{RELEASE_NAMES[release]}"


def build(
    package: str, source: Path, stages: Path, out: Path, *, version: str, release: str
) -> None:
    """Write a package's control data and make the .deb."""
    stage = stages / package
    full = debian_version(version, release)
    _add_documents(package, source, stage, full, release)
    control = stage / "DEBIAN"
    control.mkdir()
    depends = _depends(package, stage, full)
    size = sum(_blocks(path) for path in stage.rglob("*") if control not in path.parents)
    architecture = "all" if package == "credspec-lab" else _architecture()
    fields = {
        "Package": package,
        "Version": full,
        "Architecture": architecture,
        "Maintainer": MAINTAINER,
        "Installed-Size": str(size),
        "Depends": ", ".join(depends),
        **_relations(package),
        "Section": "admin",
        "Priority": "optional",
        "Description": SUMMARIES[package]
        + "".join(f"\n {line}" for line in DESCRIPTIONS[package].splitlines()),
    }
    text = "".join(f"{name}: {value}\n" for name, value in fields.items())
    (control / "control").write_text(text)
    _add_maintainer_scripts(package, source, control)
    if package == "credspec":
        (control / "conffiles").write_text("/etc/credspec/config.toml\n")
    _write_sums(stage, control)
    epoch = int(os.environ["SOURCE_DATE_EPOCH"])
    for path in [stage, *stage.rglob("*")]:
        os.utime(path, (epoch, epoch), follow_symlinks=False)
    name = f"{package}_{full}_{architecture}.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zxz", "-z3", "--build", stage, out / name],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    shutil.rmtree(control)


def check(out: Path) -> None:
    """Let lintian look at the packages; any error of it ends the build."""
    packages = sorted(map(str, out.glob("*.deb")))
    command = ["lintian", "--allow-root", "--no-cfg", "--fail-on", "error"]
    found = subprocess.run([*command, *packages], check=False, capture_output=True, text=True)
    (out / "lintian.txt").write_text(found.stdout + found.stderr)
    if found.returncode:
        sys.stderr.write(found.stdout + found.stderr)
        raise SystemExit("lintian found errors")


def _relations(package: str) -> dict[str, str]:
    if package == "credspec":
        return {
            "Recommends": "krb5-user",
            "Suggests": "credspec-extras, adcli | realmd, docker.io | docker-ce | podman",
        }
    return {"Enhances": "credspec"}


def _depends(package: str, stage: Path, full: str) -> list[str]:
    minor = sys.version_info.minor
    python = [f"python3 (>= 3.{minor}~)", f"python3 (<< 3.{minor + 1})"]
    if package == "credspec-lab":
        return [f"credspec (= {full})", *_LAB_DEPENDS]
    found = _shared_libraries(stage)
    if package == "credspec":
        own = ["libsasl2-modules-gssapi-mit", "ca-certificates"]
        return [*python, *sorted({*found, *_loaded_libraries()}), *own]
    return [f"credspec (= {full})", *python, *found]


def _shared_libraries(stage: Path) -> list[str]:
    """Return what dpkg-shlibdeps says of the compiled modules."""
    work = stage.parent / "shlibs"
    shutil.rmtree(work, ignore_errors=True)
    (work / "debian").mkdir(parents=True)
    (work / "debian/control").write_text(
        "Source: credspec\n\nPackage: credspec\nArchitecture: any\n"
    )
    modules = [path for path in stage.rglob("*.so*") if path.is_file() and not path.is_symlink()]
    private = sorted({str(path.parent) for path in modules if path.parent.name.endswith(".libs")})
    found = subprocess.run(
        [
            *("dpkg-shlibdeps", "-O", "--ignore-missing-info", "--warnings=0"),
            *(f"-l{each}" for each in private),
            *(f"-e{each}" for each in sorted(modules)),
        ],
        cwd=work,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [each for each in found.strip().removeprefix("shlibs:Depends=").split(", ") if each]


def _loaded_libraries() -> list[str]:
    """Return the packages that have the libraries loaded at run time."""
    cached = subprocess.run(["ldconfig", "-p"], check=True, capture_output=True, text=True).stdout
    found = []
    for pattern in _LIBRARIES:
        path = re.search(rf"^\s*{pattern} .*=> (\S+)$", cached, re.MULTILINE)
        if path is None:
            raise SystemExit(f"no {pattern} in this release")
        real = Path(path[1]).resolve()
        names = (str(real), str(real).removeprefix("/usr"))
        owner = next(filter(None, map(_owner, names)))
        shown = ["dpkg-query", "-W", "-f", "${source:Upstream-Version}", owner]
        version = subprocess.run(shown, check=True, capture_output=True, text=True).stdout
        found.append(f"{owner.partition(':')[0]} (>= {version.partition('+')[0]})")
    return found


def _owner(path: str) -> str | None:
    found = subprocess.run(["dpkg-query", "-S", path], check=False, capture_output=True, text=True)
    return found.stdout.partition(": ")[0] if found.returncode == 0 else None


def _architecture() -> str:
    command = ["dpkg", "--print-architecture"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _blocks(path: Path) -> int:
    """Return the size in KiB, rounded up, 1 for what is no file."""
    return max(1, -(-path.lstat().st_size // 1024)) if not path.is_dir() else 1


def _add_documents(package: str, source: Path, stage: Path, full: str, release: str) -> None:
    documents = stage / f"usr/share/doc/{package}"
    documents.mkdir(parents=True)
    copyright_text = (source / "packaging/packages/debian/copyright").read_text()
    (documents / "copyright").write_text(copyright_text)
    when = subprocess.run(
        ["date", "-u", "-R", "-d", f"@{os.environ['SOURCE_DATE_EPOCH']}"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    log = (
        f"credspec ({full}) {release}; urgency=medium\n\n"
        f"  * Version {full}; see /usr/share/doc/credspec/changelog.gz.\n\n"
        f" -- {MAINTAINER}  {when}\n"
    )
    _compress(documents / "changelog.Debian.gz", log.encode())
    if package == "credspec":
        _compress(documents / "changelog.gz", (source / "CHANGELOG.md").read_bytes())
        (documents / "README.md").write_bytes((source / "README.md").read_bytes())
    overrides = source / f"packaging/packages/debian/{package}.lintian-overrides"
    if overrides.exists():
        to = stage / f"usr/share/lintian/overrides/{package}"
        to.parent.mkdir(parents=True)
        shutil.copyfile(overrides, to)
    for path in [stage / "usr/share", *(stage / "usr/share").rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def _compress(path: Path, data: bytes) -> None:
    path.write_bytes(
        subprocess.run(["gzip", "-9n"], input=data, check=True, capture_output=True).stdout
    )


def _add_maintainer_scripts(package: str, source: Path, control: Path) -> None:
    for name in ("preinst", "postinst", "prerm", "postrm"):
        script = source / f"packaging/packages/debian/{package}.{name}"
        if script.exists():
            shutil.copyfile(script, control / name)
            (control / name).chmod(0o755)


def _write_sums(stage: Path, control: Path) -> None:
    lines = [
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  "
        f"{path.relative_to(stage)}\n"
        for path in sorted(stage.rglob("*"))
        if path.is_file()
        and not path.is_symlink()
        and control not in path.parents
        and not path.is_relative_to(stage / "etc")
    ]
    (control / "md5sums").write_text("".join(lines))
