"""See the package."""

from credspec.shim.runtime import main

__all__ = ["main"]
