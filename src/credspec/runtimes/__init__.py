"""What launchers of an earlier version import, until `credspec setup` writes them again.

Runs as root at the start of containers; all code is in `credspec.shim`.
"""
