"""The host's configuration file: its keys, and the policy in it."""
