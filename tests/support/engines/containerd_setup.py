"""The runtime in a containerd of a test, as `credspec setup containerd` sets it up."""

from __future__ import annotations

from typing import Any

from credspec.setup.containerd import ContainerdSetup
from support.engines.containerd_engine import ContainerdEngine
from support.engines.folder_engine import FolderContainerdEngine


def set_up(host: Any, engine: ContainerdEngine) -> None:
    """Register the runtime with a containerd that does not run yet, for a host's agent."""
    setup = setup_of(host, engine)
    setup.apply()
    if isinstance(engine, FolderContainerdEngine):
        engine.folder.use_own_python(setup.launcher)


def setup_of(host: Any, engine: ContainerdEngine) -> ContainerdSetup:
    """Return the set-up of a containerd for a host's agent."""
    return ContainerdSetup(
        run_directory=host.config.run_directory,
        config=engine.config,
        launcher_directory=engine.directory / "libexec",
    )
