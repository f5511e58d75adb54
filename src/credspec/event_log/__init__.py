"""What has happened: the audit log and the agent's events, read as one list.

It runs in the process of a command that shows it, and writes nothing; only root may read the audit
log.
"""
