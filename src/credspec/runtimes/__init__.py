"""How a lease reaches a container: the OCI runtime shim and the engines' gateways."""
