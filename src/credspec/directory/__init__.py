"""Active Directory: controllers, connections, accounts and managed passwords.

No process of its own: it runs in the agent and in commands, with the logon that `credspec.session`
has for them.
"""
