"""Identities: accounts of domains as this host holds them, acquired once for all leases.

In the agent's process. `acquisition` reads a managed password and obtains the ticket,
`refresh_schedule` says when that is done again, `domains` holds the sessions with domains.
"""
