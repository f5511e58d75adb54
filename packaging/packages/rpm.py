"""Makes RPMs of what was staged, for distributions with the same Python; stdlib only.

They are built on Debian 12, whose Python 3.11 is also a package of Red Hat Enterprise Linux 9 and
its relatives, and whose C library is newer than theirs: the requirements that rpmbuild reads from
the compiled modules decide whether a system takes the package.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from debian import DESCRIPTIONS, SUMMARIES

BUILT_ON = "bookworm"
_REQUIRES = {
    "credspec": ("/usr/bin/python3.11", "openldap", "cyrus-sasl-gssapi", "ca-certificates"),
    "credspec-lab": ("krb5-workstation", "iproute", "postgresql-server"),
    "credspec-extras": (),
}
_SCRIPTS = """\
%post
[ ! -d /run/systemd/system ] || systemctl daemon-reload || :

%preun
if [ $1 = 0 ] && [ -d /run/systemd/system ]; then
    systemctl --quiet disable --now credspec-docker-gateway.service credspec-agent.socket \\
        credspec-agent.service || :
fi

%postun
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
    [ $1 = 0 ] || systemctl try-restart credspec-agent.service credspec-docker-gateway.service || :
fi
"""


def rpm_version(version: str) -> str:
    """Return the version with its pre-releases before it in RPM's order."""
    return re.sub(r"\.?(dev|a|b|rc)(\d+)", r"~\1\2", version)


def build(package: str, source: Path, stages: Path, out: Path, *, version: str) -> None:
    """Make the .rpm of a package; Debian's own files are left out."""
    tree = stages / "rpm" / package
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(stages / package, tree, symlinks=True)
    for name in ("lintian", "doc"):
        shutil.rmtree(tree / "usr/share" / name, ignore_errors=True)
    for old, new in (("zsh/vendor-completions", "zsh/site-functions"),):
        if (tree / "usr/share" / old).is_dir():
            (tree / "usr/share" / new).parent.mkdir(exist_ok=True)
            (tree / "usr/share" / old).rename(tree / "usr/share" / new)
    documents = tree / f"usr/share/licenses/{package}"
    documents.mkdir(parents=True)
    shutil.copyfile(source / "LICENSE", documents / "LICENSE")
    epoch = int(os.environ["SOURCE_DATE_EPOCH"])
    for path in [tree, *tree.rglob("*")]:
        os.utime(path, (epoch, epoch), follow_symlinks=False)
    spec = stages / f"rpm/{package}.spec"
    spec.write_text(_spec(package, tree, version))
    subprocess.run(
        [
            *("rpmbuild", "-bb", "--quiet", "--target", _architecture(package)),
            *("--define", f"_topdir {stages}/rpm/work", "--define", f"_rpmdir {out}"),
            *("--define", "_rpmfilename %{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm"),
            *(
                "--define",
                "_buildhost reproducible",
                "--define",
                "clamp_mtime_to_source_date_epoch 1",
            ),
            *(
                "--define",
                "use_source_date_epoch_as_buildtime 1",
                "--define",
                "_build_id_links none",
            ),
            *("--define", "__os_install_post %{nil}", "--define", "_binary_payload w6.zstdio"),
            # Its Python packages are all in the package: no dependencies of RPM's.
            *("--define", "__pythondist_requires %{nil}"),
            *("--define", "__pythondist_provides %{nil}"),
            *("--buildroot", str(stages / f"rpm/{package}.root"), str(spec)),
        ],
        check=True,
    )


def _architecture(package: str) -> str:
    return "noarch" if package == "credspec-lab" else os.uname().machine


def _spec(package: str, tree: Path, version: str) -> str:
    requires = [*_REQUIRES[package]]
    requires += [] if package == "credspec" else [f"credspec = {rpm_version(version)}-1"]
    lines = [
        f"Name: {package}",
        f"Version: {rpm_version(version)}",
        "Release: 1",
        f"Summary: {SUMMARIES[package][0].upper()}{SUMMARIES[package][1:]}",
        "License: Apache-2.0",
        *(f"Requires: {each}" for each in requires),
        # Bundled libraries of wheels are found by their own path.
        r"%global __requires_exclude ^lib[a-z_0-9-]+-[0-9a-f]{8}\.so",
        r"%global __provides_exclude_from ^/usr/lib/credspec/",
        "",
        "%description",
        *(line if line != "." else "" for line in DESCRIPTIONS[package].splitlines()),
        "",
        "%install",
        f"rm -rf %{{buildroot}}\ncp -a {tree} %{{buildroot}}",
        "",
        _SCRIPTS if package == "credspec" else "",
        "%files",
        *_files(tree),
    ]
    return "\n".join(lines) + "\n"


def _files(tree: Path) -> list[str]:
    lines = []
    for path in sorted(tree.rglob("*")):
        name = f"/{path.relative_to(tree)}"
        ours = "/credspec" in name or "/systemd/system/credspec" in name
        if path.is_dir() and not path.is_symlink():
            if ours:
                lines.append(f'%dir %attr(0755,root,root) "{name}"')
            continue
        mark = "%config(noreplace) " if name.startswith("/etc/") else ""
        mark = "%doc " if name.startswith("/usr/share/man/") else mark
        attributes = (
            "" if path.is_symlink() else f"%attr({path.stat().st_mode & 0o777:04o},root,root) "
        )
        lines.append(f'{mark}{attributes}"{name}"')
    return lines
