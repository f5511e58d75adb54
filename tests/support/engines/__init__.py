"""Container engines with state of their own, their clients, and simulated parts of them."""
