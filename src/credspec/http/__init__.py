"""HTTP/1.1 for a few small requests, as client and as server; h11 knows the protocol."""
