"""The agent with credentials-fetcher's interface, and clients of that interface."""
