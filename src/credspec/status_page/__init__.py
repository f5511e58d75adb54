"""The status page: runs in the process of ``credspec status --web``, as the user who calls it.

It reads what that user may read: the agent's socket, and as root the audit log. The agent itself
serves no page.
"""
