"""A containerd with the runtime set up as `credspec setup containerd` does it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.engines.containerd_engine import ContainerdEngine
from support.engines.containerd_setup import set_up
from support.engines.folder_engine import FolderContainerdEngine, ReleaseFolder


@pytest.fixture(scope="package")
def engine(host: Any, engines_folder: ReleaseFolder | None) -> Iterator[ContainerdEngine]:
    if engines_folder is None:
        running = ContainerdEngine(host.lab.network.namespace)
    else:
        running = FolderContainerdEngine(host.lab.network.namespace, engines_folder)
    try:
        set_up(host, running)
        running.start()
        running.import_image(host.image)
        yield running
    finally:
        running.stop()
