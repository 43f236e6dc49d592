"""Raft (Ongaro 2014, chapters 3 to 5, sections 6.4 and 9.6) as local transitions of one server: ARCHITECTURE.md."""
