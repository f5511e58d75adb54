"""Kubernetes: the same objects that Windows pods use give Linux pods their identity.

Each part below runs as a process of its own in the cluster; `objects` is pure and has none.
"""
