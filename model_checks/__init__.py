"""Everything that compares behaviours with the spec: proofs, linking, exploration, conformance, histories, stateful tests."""
