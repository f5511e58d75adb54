"""Kerberos: keys from managed passwords, tickets from keys, caches and krb5.conf.

No process of its own: it runs in the agent and in commands. `tickets` asks the KDC; what is written
into a container is written by `credspec.agent.leases.delivery`.
"""
