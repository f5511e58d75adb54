"""Logging on to a domain: the identity of the host or of a caller, and sessions with it."""
