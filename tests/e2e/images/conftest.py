"""Images that `make images` built. Only `make test-images` runs these: a build takes minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.engines.image_archives import FOLDER, IMAGES, archive_of

collect_ignore_glob = [] if FOLDER else ["test_*.py"]


@pytest.fixture(scope="session", params=IMAGES)
def archive(request: pytest.FixtureRequest) -> Path:
    """The archive of each image."""
    return archive_of(request.param)
