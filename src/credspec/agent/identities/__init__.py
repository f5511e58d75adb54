"""Identities: accounts of domains as this host holds them, acquired once for all leases."""
