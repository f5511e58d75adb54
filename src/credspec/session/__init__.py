"""Logging on to a domain: the identity of the host or of a caller, and sessions with it.

No process of its own: it runs in the agent, which uses the host's identity, and in commands, which
may use their caller's.
"""
