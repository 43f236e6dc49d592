"""What holds in every state of the catalog and over every command, whatever the log says.

Source: Consul, "KV Store - HTTP API" (CreateIndex, ModifyIndex) and "Blocking Queries" (index).
"""

from __future__ import annotations

from spec.catalog.commands import Get
from spec.catalog.queries import query
from spec.catalog.state import State


def indexes_are_ordered(state: State, last_applied: int) -> bool:
    """0 < CreateIndex <= ModifyIndex <= the tables' indexes <= the last applied index."""
    rows = (row for _, row in state.rows.items())
    return (
        all(0 < row.create_index <= row.modify_index <= state.rows_index for row in rows)
        and all(0 < index <= state.tombstones_index for _, index in state.tombstones.items())
        and state.table_index <= last_applied
    )


def change_is_announced(before: State, after: State, key: str) -> bool:
    """If a command changed what a read of `key` answers, its index grew: a blocking query misses nothing."""
    (old_index, old), (new_index, new) = query(before, Get(key)), query(after, Get(key))
    return old == new or new_index > old_index


def key_index_never_goes_back(before: State, after: State, key: str) -> bool:
    """The index of a read of one key never goes back. (That of a list may: see `delete_tree`.)"""
    return query(after, Get(key))[0] >= query(before, Get(key))[0]
