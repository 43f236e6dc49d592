"""Consul's DNS interface."""
