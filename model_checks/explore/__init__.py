"""Explicit-state exploration of `spec/`: every interleaving within bounds, breadth first; ARCHITECTURE.md, section 1.

`plain` is the oracle: it composes the spec as it stands. `interned` is fast: local steps are computed once. `search`
offers both.
"""
