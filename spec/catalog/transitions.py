"""`apply(state, command, index) -> (state', result)`: one entry of the log, applied. Pure and deterministic: every
server gets the same state.

Source: Consul, "KV Store - HTTP API", and the behaviour of its state store for set, cas, delete, delete-cas and
delete-tree.
"""

from __future__ import annotations

from typing import assert_never

from msgspec.structs import replace

from spec.catalog.commands import CheckAndSet, Command, Delete, DeleteCheckAndSet, DeleteTree, Noop, Set
from spec.catalog.state import Row, State


def apply(state: State, command: Command, index: int) -> tuple[State, bool]:
    """Apply the command of the entry at `index`; the result is what the client that wrote it is told."""
    match command:
        case Noop():
            return state, True
        case Set():
            return set_row(state, command.key, command.value, command.flags, index), True
        case CheckAndSet():
            if modify_index(state, command.key) != command.index:
                return state, False
            return set_row(state, command.key, command.value, command.flags, index), True
        case Delete():
            return delete_row(state, command.key, index), True
        case DeleteCheckAndSet():
            # An absent key is already as the client wants it, whatever index he believes in: true.
            if command.key in state.rows and modify_index(state, command.key) != command.index:
                return state, False
            return delete_row(state, command.key, index), True
        case DeleteTree():
            return delete_tree(state, command.prefix, index), True
        case _:
            assert_never(command)


def modify_index(state: State, key: str) -> int:
    """The key's ModifyIndex; 0 if it does not exist, which is what makes `cas=0` mean "create only"."""
    row = state.rows.get(key)
    return 0 if row is None else row.modify_index


def set_row(state: State, key: str, value: bytes, flags: int, index: int) -> State:
    """Store a row. A set that changes nothing leaves every index as it was, so no blocking query wakes for it."""
    old = state.rows.get(key)
    if old is not None and (old.value, old.flags) == (value, flags):
        return state
    created = index if old is None else old.create_index
    row = Row(key, value, flags, created, index, 0 if old is None else old.lock_index)
    return replace(state, rows=state.rows.put(key, row), rows_index=index)


def delete_row(state: State, key: str, index: int) -> State:
    """Delete one key and leave a tombstone, so that the index of a list over it does not go back. An absent key
    changes nothing.
    """
    if key not in state.rows:
        return state
    return State(state.rows.without(key), state.tombstones.put(key, index), index, index)


def delete_tree(state: State, prefix: str, index: int) -> State:
    """Delete all keys under `prefix`, leaving *one* tombstone, named by the prefix; none for the root, whose lists
    have the table's index.

    A list over a longer prefix does not find that tombstone, so its index may go back: Consul's behaviour, see the
    tests.
    """
    doomed = [key for key, _ in state.rows.with_prefix(prefix)]
    if not doomed:
        return state
    rows = state.rows
    for key in doomed:
        rows = rows.without(key)
    if not prefix:
        return replace(state, rows=rows, rows_index=index)
    return State(rows, state.tombstones.put(prefix, index), index, index)
