"""``credspec kubernetes check``: why a pod has no identity. Runs in the process of the command.

It sees what the user of kubectl sees, so it goes through kubectl, with its logons and contexts.
"""
