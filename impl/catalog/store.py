"""The indexed state store that the log feeds: the tables, what applies commands to them, and who hears of changes.

`apply` is deterministic: its result depends on the commands applied before it and on nothing else, so that every server
that applied the same entries holds the same state. It must not read a clock, a random number or a configuration.

Source: Consul, KV store HTTP API and "Blocking queries". The rules of indexes: a read of a key that exists has the
key's ModifyIndex; of one that does not, the table's highest index; a list has the highest index among its entries and
the tombstones under its prefix; if there are neither, or the prefix is empty, the table's; no index is below 1.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from impl.catalog import transitions
from impl.catalog.commands import Command
from impl.catalog.indexed_table import IndexedTable
from impl.catalog.rows import Session
from impl.catalog.tables import KvEntry, Tables
from impl.catalog.transitions import Result

__all__ = ["KeysAnswer", "KvAnswer", "KvEntry", "Store"]


class KvAnswer(msgspec.Struct, frozen=True, array_like=True, tag="kv"):
    """What a query found: X-Consul-Index and the entries in the order of their keys (none: not found)."""

    index: int
    entries: tuple[KvEntry, ...]


class KeysAnswer(msgspec.Struct, frozen=True, array_like=True, tag="keys"):
    """What a query for keys found: X-Consul-Index and the keys, cut at the separator, in order."""

    index: int
    keys: tuple[str, ...]


class Store:
    """The state machine of a server. Snapshots of it: `impl/catalog/snapshot.py`."""

    def __init__(
        self,
        changed: Callable[[str], None] | None = None,
        touched: Callable[[str], None] | None = None,
        session: Callable[[str, Session | None], None] | None = None,
        lost: Callable[[str, int], None] | None = None,
        replaced: Callable[[], None] | None = None,
        retired: Callable[[Tables], None] | None = None,
    ) -> None:
        """Who hears what a command changed, after it was applied; None: nobody.

        Args:
            changed: a key of the KV store was created, changed or deleted.
            touched: the index of a table or of a group of rows rose, or vanished (`impl/catalog/tables.py`).
            session: a session began, or ended (None).
            lost: the lock of a key was lost with its session; its lock-delay in nanoseconds begins.
            replaced: a restore has put another state in the place of this one: everything may be different.
            retired: tables that nobody uses any more: to be freed in pieces, by `Tables.release`.
        """
        self.tables = Tables()
        self._changed = changed
        self._touched = touched
        self._session = session
        self._lost = lost
        self._replaced = replaced
        self._retired = retired

    @property
    def entries(self) -> IndexedTable[KvEntry]:
        """The KV store."""
        return self.tables.entries

    @property
    def tombstones(self) -> IndexedTable[int]:
        """Index of the newest deletion of a key or of the tree under it."""
        return self.tables.tombstones

    @property
    def index(self) -> int:
        """Of the last entry that changed the KV store or its tombstones; 0: none did."""
        return self.tables.kv_index

    def __len__(self) -> int:
        return len(self.entries)

    def apply(self, command: Command, index: int) -> Result:
        """Apply the command committed at `index`; return what the writer is told (ARCHITECTURE.md, section 7)."""
        tables = self.tables
        result = transitions.apply(tables, command, index)
        if self._changed is not None:
            for key in tables.touched_keys:
                self._changed(key)
        tables.touched_keys.clear()
        if tables.touched:
            self._tell_of_groups(tables)
        if tables.retired or tables.replaced:
            self._tell_of_restores(tables)
        return result

    def _tell_of_restores(self, tables: Tables) -> None:
        replaced, retired = tables.replaced, list(tables.retired)
        tables.replaced = False
        tables.retired.clear()
        if replaced and self._replaced is not None:
            self._replaced()
        for each in retired:
            if self._retired is not None:
                self._retired(each)

    def _tell_of_groups(self, tables: Tables) -> None:
        touched = dict.fromkeys(tables.touched)
        sessions, lost = list(tables.session_changes), list(tables.lost)
        tables.touched.clear()
        tables.session_changes.clear()
        tables.lost.clear()
        if self._touched is not None:
            for name in touched:
                self._touched(name)
        if self._session is not None:
            for session_id, session in sessions:
                self._session(session_id, session)
        if self._lost is not None:
            for key, delay_ns in lost:
                self._lost(key, delay_ns)

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


def _cut_after(key: str, separator: str, start: int) -> str:
    at = key.find(separator, start)
    return key if at < 0 else key[: at + len(separator)]
