"""The catalog's state: the rows of the KV store, its tombstones, and the index of the last change of each of the two
tables.

Source: Consul, "KV Store - HTTP API"; tables kvs and tombstones of its state store. *Deviation:* a tombstone stays
for ever. Consul reaps tombstones that are older than 15 minutes by a command of its own in the log.
"""

from __future__ import annotations

import msgspec

from spec.catalog.ordered_map import OrderedMap


class Row(msgspec.Struct, frozen=True):
    """One key of the KV store."""

    key: str
    value: bytes
    flags: int
    create_index: int
    """Index of the entry that created the key; a key that is deleted and set again begins anew."""
    modify_index: int
    """Index of the entry that last *changed* the row."""
    lock_index: int = 0
    """How often a lock on the key was acquired; 0 as long as there are no sessions."""


class State(msgspec.Struct, frozen=True):
    """All that the log's commands have built."""

    rows: OrderedMap[Row]
    tombstones: OrderedMap[int]
    """Key or prefix that was deleted -> index of the newest deletion under exactly that name."""
    rows_index: int = 0
    """Index of the last entry that changed `rows`."""
    tombstones_index: int = 0
    """Index of the last entry that left a tombstone."""

    @property
    def table_index(self) -> int:
        """Index of the last change of either table: what a read answers that has no index of its own."""
        return max(self.rows_index, self.tombstones_index)


def initial_state() -> State:
    """The state before the first entry."""
    return State(OrderedMap(), OrderedMap())
