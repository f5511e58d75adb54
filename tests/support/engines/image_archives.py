"""The archives of the images that are tested: `make images` made them."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = os.environ.get("CREDSPEC_TEST_IMAGES")
"""Where they are; `make test-images` sets it."""

IMAGES = ("agent", "gateway", "kubernetes")


def archive_of(image: str) -> Path:
    """Return the archive of one of the images."""
    assert FOLDER is not None
    (archive,) = Path(FOLDER).glob(f"credspec-{image}_*.tar")
    return archive
