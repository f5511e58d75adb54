"""The doctor: walks the whole way from a credential spec to a ticket, and names the first cause."""
