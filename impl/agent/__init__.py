"""Agents: what a process of `comitia agent` is made of, as a server or as a client that forwards to servers."""
