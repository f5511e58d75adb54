"""The HTTP API on the agent's socket."""
