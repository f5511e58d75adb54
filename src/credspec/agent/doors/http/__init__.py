"""The HTTP API on the agent's socket, which shim, `credspec run`, and commands use.

In the agent's process. `server` listens, `api` has the routes, `lease_fields` reads a request for
a lease, `openapi` describes all of it.
"""
