"""Writes the plain manifests from the Helm chart with its defaults: ``render.py HELM``.

The manifests name the state of the chart that they are made of, so that a test notices a change of
one without the other.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
CHART = HERE.parent / "helm/credspec"
NAMESPACE = "credspec"
# The oldest that the chart takes; which one a helm assumes by itself depends on how it was built.
KUBERNETES = "1.28.0"
MARK = "# Made by `make manifests` of the chart "
# What only Helm needs.
_HELMS = ("app.kubernetes.io/managed-by: Helm", "helm.sh/chart: ")


def state_of_chart() -> str:
    """Return a hash over all that the manifests are made of."""
    digest = hashlib.sha256()
    for path in sorted(CHART.rglob("*")):
        if path.is_file() and path.name not in {"README.md", "NOTES.txt"}:
            digest.update(path.relative_to(CHART).as_posix().encode() + b"\0")
            digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def main() -> int:
    """Write the manifests."""
    command = [sys.argv[1], "template", "credspec", str(CHART), "--namespace", NAMESPACE]
    command.append(f"--kube-version={KUBERNETES}")
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = [line for line in shown.splitlines() if not line.strip().startswith(_HELMS)]
    head = f"{MARK}{state_of_chart()}\n"
    (HERE / "credspec.yaml").write_text(head + "\n".join(lines) + "\n", "utf-8")
    crds = "---\n".join(path.read_text("utf-8") for path in sorted((CHART / "crds").iterdir()))
    (HERE / "crds.yaml").write_text(crds, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
