"""The account provider, a service of its own that gives host accounts to agents.

Runs as any user, in a process of its own: `credspec account-provider`. `server` is the service,
`tls_admission` decides who may connect.
"""
