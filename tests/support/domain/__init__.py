"""Domain controllers, name servers and the network between them and a test."""
