"""Clients of container engines, as tests run them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path


def run_client(
    command: list[str],
    *,
    data: bytes | None = None,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; it is given bytes, such as an image, and answers with text."""
    result = subprocess.run(
        command,
        env=environment,
        cwd=directory,
        input=data,
        capture_output=True,
        check=False,
        timeout=120,
    )
    shown = (text.decode("utf-8", "replace") for text in (result.stdout, result.stderr))
    return subprocess.CompletedProcess(result.args, result.returncode, *shown)
