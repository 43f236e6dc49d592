"""Snapshots and archives of the state: taken, sent, received, restored."""
