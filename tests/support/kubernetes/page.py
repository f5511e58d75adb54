"""A page of the documentation, whose blocks are typed as they stand, with a cluster's own names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

from credspec.lab.domain import Lab
from support.engines.containerd_engine import IMAGE
from support.kubernetes.chart import Chart
from support.kubernetes.programs import path_of

CHECKOUT = Path(__file__).parents[3]
_BLOCK = re.compile(r"(?:^(?: {4}.*)?\n)+", re.MULTILINE)
_HEADING = re.compile(r"^#+ ")
# The helm of one who installs it here: this cluster's paths are not those of most.
_HELM = """#!/bin/sh
case $1 in install) set -- "$@" {values};; esac
exec {helm} "$@"
"""


def blocks_of(page: str) -> list[str]:
    """Return the blocks of a page, without their indentation."""
    found = []
    for part in re.split(r"\n(?=\S)", Path(CHECKOUT, page).read_text("utf-8")):
        _, _, rest = part.partition("\n")
        block = textwrap.dedent(rest).strip("\n")
        if rest.startswith(("\n    ", "    ")) and not _HEADING.match(block):
            found.append(block)
    return found


class Page:
    """What a reader of a page does, in a directory of one's own; `done` are the blocks done."""

    def __init__(self, page: str, lab: Lab, chart: Chart, directory: Path) -> None:
        self.blocks = blocks_of(page)
        self.done: list[str] = []
        self.directory = directory
        self._lab = lab
        (directory / "packaging").symlink_to(CHECKOUT / "packaging")
        programs = directory / "bin"
        programs.mkdir()
        (programs / "kubectl").symlink_to(path_of("kubectl"))
        values = " ".join(f"--set={name}={value}" for name, value in chart.values.items())
        (programs / "helm").write_text(_HELM.format(values=values, helm=path_of("helm")))
        (programs / "helm").chmod(0o755)
        self._environment = dict(os.environ) | {
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "KUBECONFIG": str(chart.cluster.kubeconfig),
            "HOME": str(directory),
        }

    def find(self, beginning: str) -> str:
        """Return the block that begins so, with the names of this domain and image."""
        (block,) = (each for each in self.blocks if each.startswith(beginning))
        self.done.append(block)
        names = {"contoso.com": self._lab.dns_domain, "contoso": "example", "IMAGE": IMAGE}
        for name, here in names.items():
            block = block.replace(name, here)
        return block

    def type(self, beginning: str) -> str:
        """Run the lines of the block that begins so, and return what they print.

        Raises:
            AssertionError: one of them failed.
        """
        return self.run(self.find(beginning))

    def run(self, lines: str) -> str:
        """Run lines in a shell, each of which must succeed."""
        found = subprocess.run(
            self._lab.exec_argv(["bash", "-euo", "pipefail", "-c", lines]),
            cwd=self.directory,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert found.returncode == 0, f"{lines}\n{found.stdout}{found.stderr}"
        return found.stdout

    def save(self, beginning: str, name: str) -> None:
        """Write the block that begins so into a file."""
        (self.directory / name).write_text(self.find(beginning) + "\n")

    def left(self) -> list[str]:
        """Return the first lines of the blocks that were not done."""
        return [each.splitlines()[0] for each in self.blocks if each not in self.done]
