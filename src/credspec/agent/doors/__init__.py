"""The interfaces by which callers reach the agent; none of them imports another.

In the agent's process, with its privileges. A door makes a `LeaseRequest` of what came and calls
`agent.leases`; no lease knows a door.
"""
