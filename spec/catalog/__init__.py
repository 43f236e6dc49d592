"""The state machine that the replicated log feeds: Consul's catalog, as a pure function of the log: keys, the registry,
sessions and transactions.

`commands` are what the log holds, `state` is what they build, `apply` runs one command, `query` answers one read,
`properties` says what must hold. Naive on purpose: the indexed store of the implementation is judged by it. See
ARCHITECTURE.md, section 7.
"""
