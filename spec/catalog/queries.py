"""`query(state, request) -> (index, answer)`: what a read is told, and the index that it may wait on (X-Consul-
Index).

Source: Consul, "KV Store - HTTP API" and "Blocking Queries" ("the index must be greater than zero"); its KVS
endpoint.
"""

from __future__ import annotations

from typing import assert_never

from spec.catalog.commands import Get, Keys, List, Request
from spec.catalog.state import Row, State

Answer = tuple[Row, ...] | tuple[str, ...]


def query(state: State, request: Request) -> tuple[int, Answer]:
    """The answer to `request`, rows or names in the order of their keys, with its index."""
    match request:
        case Get():
            row = state.rows.get(request.key)
            return (at_least_one(state.table_index), ()) if row is None else (row.modify_index, (row,))
        case List():
            return list_index(state, request.prefix), tuple(row for _, row in state.rows.with_prefix(request.prefix))
        case Keys():
            return list_index(state, request.prefix), names(state, request.prefix, request.separator)
        case _:
            assert_never(request)


def list_index(state: State, prefix: str) -> int:
    """The newest change under `prefix`, deletions included; the table's index if nothing was ever there, or for the
    root.
    """
    if not prefix:
        return at_least_one(state.table_index)
    changes = [row.modify_index for _, row in state.rows.with_prefix(prefix)]
    changes += [index for _, index in state.tombstones.with_prefix(prefix)]
    return at_least_one(max(changes, default=state.table_index))


def names(state: State, prefix: str, separator: str) -> tuple[str, ...]:
    """The keys under `prefix`; those with a separator behind the prefix are cut after it, and named once."""
    found: list[str] = []
    for key, _ in state.rows.with_prefix(prefix):
        at = key.find(separator, len(prefix)) if separator else -1
        name = key if at < 0 else key[: at + len(separator)]
        if not found or found[-1] != name:  # keys are sorted: what is cut to the same name is adjacent
            found.append(name)
    return tuple(found)


def at_least_one(index: int) -> int:
    """A client that waits on index 0 would not wait at all."""
    return max(index, 1)
