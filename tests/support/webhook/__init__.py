"""Pods, reviews and a cluster for tests of the admission webhook."""
