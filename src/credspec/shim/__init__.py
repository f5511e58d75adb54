"""What runs as root in every container's start and end: the OCI runtime and Podman's hooks.

Rootless engines run it as their user. `runtime` is the program in place of runc, after the shell
script of `credspec.setup.launcher` has found a spec; `podman_hook` is the hook. `carriers` decides
which annotations and variables count; `container_lease` mounts and asks the agent. Standard library
and `credspec.contract` only.
"""
