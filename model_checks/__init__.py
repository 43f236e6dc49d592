"""Everything that compares behaviours with the spec; ARCHITECTURE.md, section 1."""
