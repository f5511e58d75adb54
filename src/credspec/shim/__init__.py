"""The OCI runtime and Podman's hooks: they run at the start and end of containers."""
