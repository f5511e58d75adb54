"""Where a host that is not joined gets its account from: the plug-ins of ``HostAccountConfig``.

No process of its own: it runs in the agent and in commands. `provider` has the interface of a
provider, `selection` the list of those that are built in, and each has its table of the
configuration in its own module.
"""
