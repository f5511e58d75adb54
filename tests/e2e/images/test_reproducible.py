"""A second build, from a Debian bootstrapped once more, has the same bytes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from support.engines.image_archives import FOLDER, IMAGES, archive_of
from support.engines.image_contents import ImageContents

ROOT = Path(__file__).parents[3]


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.iterdir() if path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.timeout(3600)
def test_two_builds_are_byte_identical(tmp_path: Path) -> None:
    assert FOLDER is not None
    created = ImageContents(archive_of(IMAGES[0])).description["created"]
    seconds = int(datetime.fromisoformat(created).timestamp())
    # Another umask, time zone, language and home: none of it may matter.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LC_")}
    environment |= {
        "SOURCE_DATE_EPOCH": str(seconds),
        "PYTHONPATH": str(ROOT / "tests"),
        "TZ": "Asia/Tokyo",
        "LANG": "C",
        "HOME": str(tmp_path),
    }
    command = [sys.executable, str(ROOT / "packaging/images/build.py")]
    log = tmp_path / "log"
    with log.open("wb") as file:
        done = subprocess.run(
            [*command, "--output", str(tmp_path / "again")],
            env=environment,
            cwd=tmp_path,
            umask=0o077,
            stdout=file,
            stderr=file,
            check=False,
        )
    assert done.returncode == 0, log.read_text()[-4000:]
    again = digests(tmp_path / "again")
    assert len(again) == 3 * len(IMAGES)
    assert again == digests(Path(FOLDER))
