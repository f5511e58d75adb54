"""Group Managed Service Accounts for Linux containers, by credential spec."""

__version__ = "0.1.0.dev0"
