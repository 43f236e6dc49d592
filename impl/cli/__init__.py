"""The command line: clients of an agent's HTTP API, blocking, with threads; and `agent` itself."""
