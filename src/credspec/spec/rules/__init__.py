"""The lint rules: each has its check and its fix together. Pure; no process of its own."""
