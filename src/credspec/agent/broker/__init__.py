"""The agent as the KDC of containers: a decoy in the container, real tickets after the policy.

It runs in the agent's process; its sockets are open in the containers' network namespaces.
"""
