"""The state machine as rows, in one canonical order: what a snapshot holds, and what a state's digest is made of.

The order (ARCHITECTURE.md, section 7): the `index` row of the KV store, those of the registry by name, then table by
table, the rows of each by key. Two servers that applied the same entries make the same rows, and so the same bytes and
the same digest.

    ["index", name, value]
    ["kv", [key, flags, value, create_index, modify_index, lock_index, session]]
    ["tombstone", key, index]
    ["node", [...]]    ["service", [...]]    ["check", [...]]    ["session", [...]]

So far what an archive holds, too. If there was a restore, or one is under way, there follow:

    ["shift", value]
    ["staging", id, chunks], and the rows of the staged state

Rows travel in blocks: a msgpack array of a few hundred rows, which one call encodes and one call decodes. The digest
is BLAKE2b-128 over the rows themselves, without the headers of the arrays, so that it says nothing of blocks.

Reading a state out and building one up are both done in small steps, so that neither blocks the loop. This module must
not do I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from impl.catalog.restore import Staging, put_row
from impl.catalog.store import Store
from impl.catalog.table import View
from impl.catalog.tables import Tables
from impl.catalog.tagged import (
    KV_INDEX,
    ArchivedRow,
    CheckRow,
    IndexRow,
    KvRow,
    NodeRow,
    ServiceRow,
    SessionRow,
    TombstoneRow,
)

ROWS_AT_ONCE = 250
"""Rows in a step: well under a millisecond of work."""
BLOCK_BYTES = 128 * 1024
"""A block ends when its values have this many bytes together."""


class ShiftRow(msgspec.Struct, frozen=True, array_like=True, tag="shift", gc=False):
    """`Tables.shift`, unless it is 0."""

    value: int


class StagingRow(msgspec.Struct, frozen=True, array_like=True, tag="staging", gc=False):
    """A restore is under way: the rows that follow are what has arrived of another state."""

    id: str
    chunks: int


Row = ArchivedRow | ShiftRow | StagingRow

encode_rows = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[list[Row]] = msgspec.msgpack.Decoder(list[Row])


def encode_blocks(rows: Sequence[Row]) -> list[bytes]:
    """The rows in blocks, none of which is much larger than BLOCK_BYTES unless a single row is."""
    blocks, first, size = list[bytes](), 0, 0
    for position, row in enumerate(rows, 1):
        size += len(row.row.value) if isinstance(row, KvRow) else 0
        if size >= BLOCK_BYTES or position == len(rows):
            blocks.append(encode_rows(rows[first:position]))
            first, size = position, 0
    return blocks


class UnknownRow(Exception):
    """An intact snapshot has a row that this version does not know."""


def decode_rows(block: bytes) -> list[Row]:
    """The rows of a block. Raises UnknownRow."""
    try:
        return _decoder.decode(block)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UnknownRow(
            f"it has a row that this version cannot read ({error}): run the version that wrote it"
        ) from error


class StateDigest:
    """The digest of a state, block by block."""

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=16)

    def add(self, block: bytes) -> None:
        """The next block of rows."""
        self._hash.update(memoryview(block)[_array_header_bytes(block[0]) :])

    def hexdigest(self) -> str:
        """Of all the rows so far."""
        return self._hash.hexdigest()


def _array_header_bytes(first: int) -> int:
    """Length of the header of a msgpack array, from its first byte: fixarray, array 16 or array 32."""
    return {0xDC: 3, 0xDD: 5}.get(first, 1)


class StoreView:
    """A store as it was when the view was made; its rows in canonical order, a few at a time."""

    def __init__(self, store: Store, *, archive: bool = False) -> None:
        """Costs the same whatever the store holds. The view must be read to its end, or closed.

        `archive`: the state in force alone, without what restores have left or staged.
        """
        tables = store.tables
        self._parts: list[list[Row] | tuple[View[Any], Callable[[str, Any], Row]]] = [
            [IndexRow(KV_INDEX, tables.kv_index)],
            *_views(tables),
        ]
        if archive:
            return
        if tables.shift:
            self._parts.append([ShiftRow(tables.shift)])
        if (staging := tables.staging) is not None:
            first: list[Row] = [StagingRow(staging.id, staging.chunks)]
            if staging.begun:
                first.append(IndexRow(KV_INDEX, staging.tables.kv_index))
            self._parts += [first, *_views(staging.tables)]

    @property
    def done(self) -> bool:
        """Whether every row was handed out, or the view was closed."""
        return not self._parts

    def rows(self, count: int = ROWS_AT_ONCE) -> Sequence[Row]:
        """The next rows, at most 2 * `count`; perhaps none although there are more: see `done`."""
        if not self._parts:
            return []
        part = self._parts[0]
        if isinstance(part, list):
            del self._parts[0]
            return part
        view, shown = part
        rows = [shown(key, row) for key, row in view.rows(count)]
        if view.done:
            del self._parts[0]
        return rows

    def close(self) -> None:
        """Nobody reads it any more."""
        for part in self._parts:
            if not isinstance(part, list):
                part[0].close()
        self._parts = []


def _views(tables: Tables) -> list[tuple[View[Any], Callable[[str, Any], Row]]]:
    """The tables in canonical order."""
    return [
        (tables.indexes.view(), IndexRow),
        (tables.entries.view(), lambda _, row: KvRow(row)),
        (tables.tombstones.view(), TombstoneRow),
        (tables.nodes.view(), lambda _, row: NodeRow(row)),
        (tables.services.view(), lambda _, row: ServiceRow(row)),
        (tables.checks.view(), lambda _, row: CheckRow(row)),
        (tables.sessions.view(), lambda _, row: SessionRow(row)),
    ]


def restore_rows(store: Store, rows: Sequence[Row]) -> None:
    """Add rows of a snapshot to a store that is being built: nobody waits for its changes."""
    tables = store.tables
    for row in rows:
        match row:
            case ShiftRow(value):
                tables.shift = value
            case StagingRow(id, chunks):
                tables.staging = Staging(id, chunks)
            case _:
                if tables.staging is None:
                    put_row(tables, row)
                else:
                    tables.staging.add((row,))


def state_digest(store: Store, *, archive: bool = False) -> str:
    """The digest of the whole state at once: for states that are small, or servers that do nothing else."""
    digest, view = StateDigest(), StoreView(store, archive=archive)
    while not view.done:
        for block in encode_blocks(view.rows()):
            digest.add(block)
    return digest.hexdigest()
