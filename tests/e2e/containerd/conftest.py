"""A containerd with the runtime set up as `credspec setup containerd` does it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from containerd_engine import ContainerdEngine

from credspec.runtimes.containerd_setup import ContainerdSetup


@pytest.fixture(scope="package")
def engine(host: Any) -> Iterator[ContainerdEngine]:
    running = ContainerdEngine(host.lab.network.namespace)
    try:
        setup_of(host, running).apply()
        running.start()
        running.import_image(host.image)
        yield running
    finally:
        running.stop()


def setup_of(host: Any, engine: ContainerdEngine) -> ContainerdSetup:
    return ContainerdSetup(
        run_directory=host.config.run_directory,
        config=engine.config,
        launcher_directory=engine.directory / "libexec",
    )
