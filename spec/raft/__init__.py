"""Raft (Ongaro 2014, chapter 3 and section 6.4) as local transitions of one server; ARCHITECTURE.md, section 3."""
