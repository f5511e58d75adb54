"""Kubernetes' objects, as they are read and written; pure, without a process of its own."""
