"""HTTP/1.1 for a few small requests, as client and as server; h11 knows the protocol.

No process of its own: it runs in the agent, in the CSI driver and in the webhook.
"""
