"""The running system over its sockets, under a random client, beside spec/catalog.

`system` is what the machine knows of agents (no sockets here: a binding is handed in), `machine` lets Hypothesis choose
what is asked, `conversation` asks it and writes the history, `judge` compares every answer with the spec and keeps the
`worlds` that are possible, `run` is the check as one call. The stored history is judged by the same judge.

Indexes are compared as they are: after every request the leader is asked how far its log is applied, so the index of
each command is known, and every entry of the log is accounted for. Must not import impl.
"""
