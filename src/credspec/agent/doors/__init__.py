"""The interfaces by which callers reach the agent; none of them imports another."""
