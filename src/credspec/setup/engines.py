"""The container engines that ``credspec setup`` knows. A new one is a class and an entry here."""

from __future__ import annotations

from typing import Final

from credspec.setup.containerd import ContainerdSetup
from credspec.setup.docker import DockerSetup
from credspec.setup.engine import EngineSetup
from credspec.setup.podman import PodmanSetup

ENGINES: Final[dict[str, type[EngineSetup]]] = {
    engine.name: engine for engine in (DockerSetup, ContainerdSetup, PodmanSetup)
}
