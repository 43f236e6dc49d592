"""Restores: a state that was archived takes the place of the one in force.

A restore is a sequence of entries: a begin, the archive's rows in chunks, a commit. What has arrived is *staged*, a
part of the state that no query looks at. Until the commit the state in force is as if there were no restore; the
commit replaces all of it, or is refused. Staged is one restore at most: each begin forgets what was staged before.

Rows have one canonical order. Restored rows keep the indexes that they had; so that what is written later has greater
ones, `shift` grows by what the log is behind. Source: Consul, "Snapshot HTTP API"; hashicorp/raft, `Restore`, which
lets the log go on after the snapshot's index. *Deviation:* the log's indexes are Raft's own here, and only the
catalog's are shifted; and a restore whose leader is lost leaves the old state in force.
"""

from __future__ import annotations

from itertools import pairwise
from typing import assert_never

from msgspec.structs import replace

from spec.catalog import invariants
from spec.catalog.kv import Invalid
from spec.catalog.ordered_map import OrderedMap
from spec.catalog.state import (
    ArchivedRow,
    Check,
    Index,
    Node,
    Row,
    Service,
    Session,
    Staging,
    State,
    TableIndex,
    Tombstone,
    initial_state,
    node_key,
    row_key,
)

KV_INDEX = "kv"
"""The name of the KV store's index in archives: its row comes first."""
INDEX_MAX: Index = 1 << 62
"""No restored index is greater: there is room for as many entries again in 64 bits."""


def begin(state: State, id: str) -> State:
    """Forget what is staged, and stage another state if it has a name."""
    return replace(state, staging=Staging(id) if id else None)


def chunk(state: State, id: str, number: int, rows: tuple[ArchivedRow, ...]) -> State:
    """Stage the next rows. Raises Invalid: it is not the next chunk of this restore, or its rows are out of order."""
    staging = under_way(state, id)
    if number != staging.chunks + 1:
        raise Invalid(f'chunk {number} of restore "{id}" does not follow chunk {staging.chunks}')
    places = [place(row) for row in (*staging.rows[-1:], *rows)]
    if any(before >= after for before, after in pairwise(places)):
        raise Invalid(f'the rows of chunk {number} of restore "{id}" are not in order')
    return replace(state, staging=Staging(id, number, staging.rows + rows))


def commit(state: State, id: str, chunks: int, index: Index) -> State:
    """The staged state. Raises Invalid: a chunk is missing, or the rows are not those of a state."""
    staging = under_way(state, id)
    if chunks != staging.chunks:
        raise Invalid(f'restore "{id}" has {staging.chunks} chunks, not {chunks}')
    restored = state_of(staging.rows)
    if rows_of(restored) != staging.rows or not is_sound(restored):
        raise Invalid(f'the rows of restore "{id}" are not those of a state')
    return replace(restored, shift=state.shift + max(0, newest_index(restored) - index))


def under_way(state: State, id: str) -> Staging:
    """What is staged. Raises Invalid: nothing, or another restore."""
    if state.staging is None or state.staging.id != id:
        raise Invalid(f'no restore "{id}" is under way')
    return state.staging


def is_sound(state: State) -> bool:
    """Whether the log could have built it, as far as all later commands rely on that."""
    return (
        invariants.references_exist(state)
        and invariants.only_sessions_hold_locks(state)
        and invariants.indexes_are_ordered(state, INDEX_MAX)
        and state.table_index >= 0
    )


def newest_index(state: State) -> Index:
    """The greatest index in the state."""
    return max([state.table_index, *(index for _, index in state.indexes.items())])


# ---------------------------------------------------------------------------------------------------------------- rows


def rows_of(state: State) -> tuple[ArchivedRow, ...]:
    """The state in force as rows, in canonical order: what an archive holds."""
    return (
        TableIndex(KV_INDEX, state.table_index),
        *(TableIndex(name, index) for name, index in state.indexes.items()),
        *(row for _, row in state.rows.items()),
        *(Tombstone(key, index) for key, index in state.tombstones.items()),
        *(row for _, row in state.nodes.items()),
        *(row for _, row in state.services.items()),
        *(row for _, row in state.checks.items()),
        *(row for _, row in state.sessions.items()),
    )


def state_of(rows: tuple[ArchivedRow, ...]) -> State:
    """The state that has these rows."""
    state = initial_state()
    for row in rows:
        _, key = place(row)
        match row:
            case TableIndex():
                state = with_index(state, row)
            case Row():
                state = replace(state, rows=state.rows.put(key, row))
            case Tombstone():
                state = replace(state, tombstones=state.tombstones.put(key, row.index))
            case Node():
                state = replace(state, nodes=state.nodes.put(key, row))
            case Service():
                state = replace(state, services=state.services.put(key, row))
            case Check():
                state = replace(state, checks=state.checks.put(key, row))
            case Session():
                state = replace(state, sessions=state.sessions.put(key, row))
            case _:
                assert_never(row)
    return state


def with_index(state: State, row: TableIndex) -> State:
    """The state with an index. An archive has one index for the KV store, which is the greater of two."""
    if row.name == KV_INDEX:
        return replace(state, rows_index=row.index, tombstones_index=row.index)
    indexes: OrderedMap[Index] = state.indexes.put(row.name, row.index)
    return replace(state, indexes=indexes)


def place(row: ArchivedRow) -> tuple[int, str]:
    """Where a row stands in the canonical order: its table's number, its key there."""
    match row:
        case TableIndex(name):
            return (0, "") if name == KV_INDEX else (1, name)
        case Row():
            return 2, row.key
        case Tombstone():
            return 3, row.key
        case Node():
            return 4, node_key(row.node)
        case Service():
            return 5, row_key(row.node, row.id)
        case Check():
            return 6, row_key(row.node, row.check_id)
        case Session():
            return 7, row.id
        case _:
            assert_never(row)
