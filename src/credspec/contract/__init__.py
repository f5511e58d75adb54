"""What the agent, the shim, the gateway and `credspec run` must agree on; standard library only.

Names of variables and annotations, paths, options, and the request for a lease. No process of
its own: it is loaded as root in every container's start, so each import here costs time there.
"""
