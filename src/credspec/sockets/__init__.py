"""Unix sockets of services: who may connect, how many at a time, bytes handed on.

No process of its own: it runs in the agent, the gateway and the account provider.
"""
