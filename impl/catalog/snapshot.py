"""The state machine as rows, in one canonical order: what a snapshot holds, and what a state's digest is made of.

The order (ARCHITECTURE.md, section 7): the `index` rows by name, then table by table, the rows of each by key. Two
servers that applied the same entries make the same rows, and so the same bytes and the same digest.

    ["index", name, value]
    ["kv", key, flags, value, create_index, modify_index, lock_index]
    ["tombstone", key, index]

Rows travel in blocks: a msgpack array of a few hundred rows, which one call encodes and one call decodes. The digest
is BLAKE2b-128 over the rows themselves, without the headers of the arrays, so that it says nothing of blocks.

Reading a state out and building one up are both done in small steps, so that neither blocks the loop. This module must
not do I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import assert_never

import msgspec

from impl.catalog.store import KvEntry, Store

ROWS_AT_ONCE = 250
"""Rows in a step: well under a millisecond of work."""
BLOCK_BYTES = 128 * 1024
"""A block ends when its values have this many bytes together."""
KV_INDEX = "kv"
"""Name of the index of the KV store: of the last entry that changed a key or left a tombstone."""


class IndexRow(msgspec.Struct, frozen=True, array_like=True, tag="index", gc=False):
    """The index of the last change of a table."""

    name: str
    value: int


class KvRow(msgspec.Struct, frozen=True, array_like=True, tag="kv", gc=False):
    """A key."""

    key: str
    flags: int
    value: bytes
    create_index: int
    modify_index: int
    lock_index: int


class TombstoneRow(msgspec.Struct, frozen=True, array_like=True, tag="tombstone", gc=False):
    """A key or prefix that was deleted."""

    key: str
    index: int


Row = IndexRow | KvRow | TombstoneRow

encode_rows = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[list[Row]] = msgspec.msgpack.Decoder(list[Row])


def encode_blocks(rows: Sequence[Row]) -> list[bytes]:
    """The rows in blocks, none of which is much larger than BLOCK_BYTES unless a single row is."""
    blocks, first, size = list[bytes](), 0, 0
    for position, row in enumerate(rows, 1):
        size += len(row.value) if isinstance(row, KvRow) else 0
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
        self._first: list[Row] = [IndexRow(KV_INDEX, store.index)]
        self._entries = store.entries.view()
        self._tombstones = store.tombstones.view()

    @property
    def done(self) -> bool:
        """Whether every row was handed out, or the view was closed."""
        return self._entries.done and self._tombstones.done and not self._first

    def rows(self, count: int = ROWS_AT_ONCE) -> Sequence[Row]:
        """The next rows, at most 2 * `count`; perhaps none although there are more: see `done`."""
        if self._first:
            rows, self._first = self._first, []
            return rows
        if not self._entries.done:
            return [
                KvRow(entry.key, entry.flags, entry.value, entry.create_index, entry.modify_index, entry.lock_index)
                for _, entry in self._entries.rows(count)
            ]
        return [TombstoneRow(key, index) for key, index in self._tombstones.rows(count)]

    def close(self) -> None:
        """Nobody reads it any more."""
        self._first = []
        self._entries.close()
        self._tombstones.close()


def restore_rows(store: Store, rows: Sequence[Row]) -> None:
    """Add rows of a snapshot to a store that is being built: nobody waits for its changes."""
    for row in rows:
        match row:
            case KvRow(key, flags, value, create_index, modify_index, lock_index):
                store.entries.put(key, KvEntry(key, flags, value, create_index, modify_index, lock_index))
            case TombstoneRow(key, index):
                store.tombstones.put(key, index)
            case IndexRow(name, value):
                if name != KV_INDEX:
                    raise UnknownRow(f"it has an index {name!r} that this version does not know: run a newer version")
                store.index = value
            case _:
                assert_never(row)


def state_digest(store: Store) -> str:
    """The digest of the whole state at once: for states that are small, or servers that do nothing else."""
    digest, view = StateDigest(), StoreView(store)
    while not view.done:
        for block in encode_blocks(view.rows()):
            digest.add(block)
    return digest.hexdigest()
