"""`credspec setup`: units, engines and launchers, as root and once.

Runs as the user of the engine if that is rootless. `launcher` writes the script that every
container's start then runs; `units` has the systemd units.
"""
