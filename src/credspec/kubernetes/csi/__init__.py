"""The CSI node driver: gives pods volumes with tickets; a process on each node, as root.

It mounts, and asks on the node itself whether a pod's service account may use the object that the
pod names: no webhook's outage or absence changes who gets what. The agent fills the volumes.
"""
