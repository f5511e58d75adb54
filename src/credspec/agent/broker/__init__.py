"""The agent as the KDC of containers: a decoy in the container, real tickets after the policy."""
