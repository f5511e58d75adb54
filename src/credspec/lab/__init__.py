"""A throwaway real Active Directory domain, for demonstrations, tests and developers.

Runs as root in network namespaces of its own; not for production hosts.
"""
