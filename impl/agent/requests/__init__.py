"""The way of a client's request: from the agent that it reached to the leader, and the answer back."""
