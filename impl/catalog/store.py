"""The indexed state store that the log feeds: the KV slice of the catalog.

`apply` is deterministic: its result depends on the commands applied before it and on nothing else, so that every server
that applied the same entries holds the same state. It must not read a clock, a random number or a configuration.

Source: Consul, KV store HTTP API and "Blocking queries"; the index rules follow Consul's state store:

- an entry that is set to what it already is keeps its ModifyIndex;
- a read of a key that exists has the key's ModifyIndex; of one that does not, the table's highest index;
- a list has the highest index among its entries and the tombstones under its prefix; if there are neither, or the
  prefix is empty, the table's;
- a deletion of a tree leaves one tombstone, at its prefix;
- no index is ever below 1.

*Deviation:* tombstones are kept for ever. Consul reaps them after 15 minutes; then the index of a list may go back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

import msgspec

from impl.catalog.commands import (
    Command,
    KvCas,
    KvDelete,
    KvDeleteCas,
    KvDeleteTree,
    KvSet,
    Noop,
)
from impl.catalog.table import Table


class KvEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One key as Consul stores it. `lock_index` counts acquisitions of its lock (always 0 until sessions exist)."""

    key: str
    flags: int
    value: bytes
    create_index: int
    modify_index: int
    lock_index: int = 0


class KvAnswer(msgspec.Struct, frozen=True, array_like=True):
    """What a query found: X-Consul-Index and the entries in the order of their keys (none: not found)."""

    index: int
    entries: tuple[KvEntry, ...]


class KeysAnswer(msgspec.Struct, frozen=True, array_like=True):
    """What a query for keys found: X-Consul-Index and the keys, cut at the separator, in order."""

    index: int
    keys: tuple[str, ...]


class Store:
    """Keys with their indexes, and the tombstones of deleted ones. Snapshots of it: `impl/catalog/snapshot.py`."""

    def __init__(self, changed: Callable[[str], None] | None = None) -> None:
        """`changed` is called with each key that a command created, changed or deleted: it wakes blocked queries."""
        self.entries: Table[KvEntry] = Table()
        self.tombstones: Table[int] = Table()
        """Index of the newest deletion of a key or of the tree under it."""
        self.index = 0
        """Of the last entry that changed either table."""
        self._changed = changed if changed is not None else _unwatched

    def __len__(self) -> int:
        return len(self.entries)

    def apply(self, command: Command, index: int) -> bool:
        """Apply the command committed at `index`; return what the writer is told (ARCHITECTURE.md, section 7)."""
        match command:
            case KvSet(key, value, flags):
                self._set(key, value, flags, index)
                return True
            case KvCas():
                return self._check_and_set(command, index)
            case KvDelete(key):
                self._delete(key, index)
                return True
            case KvDeleteCas():
                return self._check_and_delete(command, index)
            case KvDeleteTree(prefix):
                self._delete_tree(prefix, index)
                return True
            case Noop():
                return True
            case _:
                assert_never(command)

    def get(self, key: str) -> KvAnswer:
        """One key: `["kv-get", key]`."""
        entry = self.entries.get(key)
        if entry is None:
            return KvAnswer(max(self.index, 1), ())
        return KvAnswer(entry.modify_index, (entry,))

    def list_prefix(self, prefix: str) -> KvAnswer:
        """Every key that starts with `prefix`: `["kv-list", prefix]`."""
        entries = tuple(map(self.entries.__getitem__, self.entries.under(prefix)))
        if not prefix:
            return KvAnswer(max(self.index, 1), entries)
        newest = max((entry.modify_index for entry in entries), default=0)
        for key in self.tombstones.under(prefix):
            newest = max(newest, self.tombstones[key])
        return KvAnswer(max(newest or self.index, 1), entries)

    def list_keys(self, prefix: str, separator: str) -> KeysAnswer:
        """The keys that start with `prefix`, each cut after the first `separator` that follows the prefix."""
        answer = self.list_prefix(prefix)
        found = [entry.key for entry in answer.entries]
        if separator:
            found = [_cut_after(key, separator, len(prefix)) for key in found]
        return KeysAnswer(answer.index, tuple(dict.fromkeys(found)))

    def _set(self, key: str, value: bytes, flags: int, index: int) -> None:
        old = self.entries.get(key)
        if old is None:
            entry = KvEntry(key, flags, value, index, index)
        elif old.value == value and old.flags == flags:
            return
        else:
            entry = KvEntry(key, flags, value, old.create_index, index, old.lock_index)
        self.entries.put(key, entry)
        self.index = index
        self._changed(key)

    def _check_and_set(self, command: KvCas, index: int) -> bool:
        old = self.entries.get(command.key)
        if command.index != (0 if old is None else old.modify_index):
            return False
        self._set(command.key, command.value, command.flags, index)
        return True

    def _delete(self, key: str, index: int) -> None:
        if self.entries.pop(key) is None:
            return
        self.tombstones.put(key, index)
        self.index = index
        self._changed(key)

    def _check_and_delete(self, command: KvDeleteCas, index: int) -> bool:
        old = self.entries.get(command.key)
        if old is not None and old.modify_index != command.index:
            return False
        self._delete(command.key, index)
        return True

    def _delete_tree(self, prefix: str, index: int) -> None:
        doomed = self.entries.under(prefix)
        if not doomed:
            return
        for key in doomed:
            self.entries.pop(key)
        if prefix:
            self.tombstones.put(prefix, index)
        self.index = index
        for key in doomed:
            self._changed(key)


def _unwatched(key: str) -> None:
    """Nobody waits for changes."""


def _cut_after(key: str, separator: str, start: int) -> str:
    at = key.find(separator, start)
    return key if at < 0 else key[: at + len(separator)]
