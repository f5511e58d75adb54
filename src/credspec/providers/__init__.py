"""Where a host that is not joined gets its account from: the plug-ins of ``HostAccountConfig``."""
