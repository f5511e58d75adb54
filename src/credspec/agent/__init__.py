"""The host agent: a service, root with few capabilities in a sandbox.

`daemon` puts it together. Requests come through `doors`; `leases` decides on them, refuses them
and writes tickets; `identities` acquires accounts. The modules here watch the process (its clock,
its event loop, its domain) and carry blocking calls. It may neither mount nor create Unix sockets.
"""
