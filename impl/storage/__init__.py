"""The durable log and the data directory, over the runtime's disk."""
