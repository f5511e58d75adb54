"""The doctor: checks every step from a credential spec to a ticket, and names the first cause."""
