"""The Docker gateway: dockerd's API with ``credentialspec=`` understood.

A service of its own, as root, or as the user of a rootless engine. Linux dockerd refuses that
option when a container is created. The gateway forwards the API untouched, except that it takes
the option out of such a request, checks it by the rules of the Docker daemon on Windows, and gives
the container the ``credspec`` runtime and the reference to the spec instead. It has no tickets.
"""
