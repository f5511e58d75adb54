"""Leases: a container's use of one or more identities, from its creation to its deletion."""
