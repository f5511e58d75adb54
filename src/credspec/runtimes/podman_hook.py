"""See the package."""

from credspec.shim.podman_hook import main

__all__ = ["main"]
