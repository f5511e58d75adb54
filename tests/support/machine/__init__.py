"""A machine for a test: a booted systemd, another Debian, processes, terminals, what is left."""
