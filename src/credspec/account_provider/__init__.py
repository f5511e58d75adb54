"""The account provider: a service of its own that gives host accounts to agents."""
