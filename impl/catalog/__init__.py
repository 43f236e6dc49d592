"""The replicated state machine: commands as the log carries them, and the indexed state store that applies them."""
