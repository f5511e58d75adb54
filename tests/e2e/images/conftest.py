"""Images that `make images` built. Only `make test-images` runs these: a build takes minutes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FOLDER = os.environ.get("CREDSPEC_TEST_IMAGES")
"""Where the images are; `make test-images` sets it."""

collect_ignore_glob = [] if FOLDER else ["test_*.py"]
IMAGES = ("agent", "gateway")


def archive_of(image: str) -> Path:
    """Return the archive of an image, `agent` or `gateway`."""
    assert FOLDER is not None
    (archive,) = Path(FOLDER).glob(f"credspec-{image}_*.tar")
    return archive


@pytest.fixture(scope="session", params=IMAGES)
def archive(request: pytest.FixtureRequest) -> Path:
    """The archive of each image."""
    return archive_of(request.param)
