"""Clusters of real processes, each node in its own network namespace, all gone when their supervisor is."""
