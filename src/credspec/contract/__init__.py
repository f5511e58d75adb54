"""What the agent, the shim, the gateway and `credspec run` must agree on; standard library only."""
