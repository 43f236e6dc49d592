"""The state machine as rows, in one canonical order: what a snapshot holds, and what a state's digest is made of.

The order (ARCHITECTURE.md, section 7): the `index` row of the KV store, those of the registry by name, then table by
table, the rows of each by key. Two servers that applied the same entries make the same rows, and so the same bytes and
the same digest.

    ["index", name, value]
    ["kv", [key, flags, value, create_index, modify_index, lock_index, session]]
    ["tombstone", key, index]
    ["node", [...]]    ["service", [...]]    ["check", [...]]    ["session", [...]]

Rows travel in blocks: a msgpack array of a few hundred rows, which one call encodes and one call decodes. The digest
is BLAKE2b-128 over the rows themselves, without the headers of the arrays, so that it says nothing of blocks.

Reading a state out and building one up are both done in small steps, so that neither blocks the loop. This module must
not do I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, assert_never

import msgspec

from impl.catalog.rows import Session, node_key, row_key
from impl.catalog.store import Store
from impl.catalog.table import View
from impl.catalog.tagged import CheckRow, KvRow, NodeRow, ServiceRow

ROWS_AT_ONCE = 250
"""Rows in a step: well under a millisecond of work."""
BLOCK_BYTES = 128 * 1024
"""A block ends when its values have this many bytes together."""

KV_INDEX = "kv"
"""Name of the index of the KV store: of the last entry that changed a key or left a tombstone. Its row comes first."""


class IndexRow(msgspec.Struct, frozen=True, array_like=True, tag="index", gc=False):
    """The index of the last change of a table."""

    name: str
    value: int


class TombstoneRow(msgspec.Struct, frozen=True, array_like=True, tag="tombstone", gc=False):
    """A key or prefix that was deleted."""

    key: str
    index: int


class SessionRow(msgspec.Struct, frozen=True, array_like=True, tag="session", gc=False):
    """A session."""

    row: Session


Row = IndexRow | KvRow | TombstoneRow | NodeRow | ServiceRow | CheckRow | SessionRow

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

    def __init__(self, store: Store) -> None:
        """Costs the same whatever the store holds. The view must be read to its end, or closed."""
        tables = store.tables
        self._first: list[Row] = [IndexRow(KV_INDEX, tables.kv_index)]
        self._views: list[tuple[View[Any], Callable[[str, Any], Row]]] = [
            (tables.indexes.view(), IndexRow),
            (tables.entries.view(), lambda _, row: KvRow(row)),
            (tables.tombstones.view(), TombstoneRow),
            (tables.nodes.view(), lambda _, row: NodeRow(row)),
            (tables.services.view(), lambda _, row: ServiceRow(row)),
            (tables.checks.view(), lambda _, row: CheckRow(row)),
            (tables.sessions.view(), lambda _, row: SessionRow(row)),
        ]

    @property
    def done(self) -> bool:
        """Whether every row was handed out, or the view was closed."""
        return not self._views

    def rows(self, count: int = ROWS_AT_ONCE) -> Sequence[Row]:
        """The next rows, at most 2 * `count`; perhaps none although there are more: see `done`."""
        if self._first:
            first, self._first = self._first, []
            return first
        if not self._views:
            return []
        view, shown = self._views[0]
        rows = [shown(key, row) for key, row in view.rows(count)]
        if view.done:
            del self._views[0]
        return rows

    def close(self) -> None:
        """Nobody reads it any more."""
        for view, _ in self._views:
            view.close()
        self._first, self._views = [], []


def restore_rows(store: Store, rows: Sequence[Row]) -> None:
    """Add rows of a snapshot to a store that is being built: nobody waits for its changes."""
    tables = store.tables
    for each in rows:
        match each:
            case KvRow(row):
                tables.entries.put(row.key, row)
            case TombstoneRow(key, index):
                tables.tombstones.put(key, index)
            case IndexRow(name, value):
                if name == KV_INDEX:
                    tables.kv_index = value
                else:
                    tables.indexes.put(name, value)
            case NodeRow(node):
                tables.nodes.put(node_key(node.node), node)
            case ServiceRow(service):
                tables.services.put(row_key(service.node, service.id), service)
            case CheckRow(check):
                tables.checks.put(row_key(check.node, check.check_id), check)
            case SessionRow(session):
                tables.sessions.put(session.id, session)
            case _:
                assert_never(each)


def state_digest(store: Store) -> str:
    """The digest of the whole state at once: for states that are small, or servers that do nothing else."""
    digest, view = StateDigest(), StoreView(store)
    while not view.done:
        for block in encode_blocks(view.rows()):
            digest.add(block)
    return digest.hexdigest()
