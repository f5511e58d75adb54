"""The host agent: identities, leases, and the API that makes and releases them."""
