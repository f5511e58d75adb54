"""`credspec run`: a plain process with tickets.

Runs as the user who calls, around one program, until it ends. It asks the agent for the lease.
"""
