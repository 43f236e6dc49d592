"""The leader's part in sessions: TTLs, lock-delays, and ends that are on their way."""
