"""A KDC's side of the TGS exchange (RFC 4120 3.3), for tickets that only the agent understands.

Without a process of its own: bytes in, bytes out, the time is given. Sockets and policy are the
agent's.
"""
