"""Restores, on the tables: another state is staged in chunks, beside the one in force, then takes its place at once.

Rows arrive in canonical order (`impl/catalog/snapshot.py`), so that whatever a row needs is staged before it: whether
the rows are those of a state is noted row by row, and the commit costs the same whatever it replaces. Restored rows
keep their indexes; `Tables.shift` grows so that later ones are greater. Source: Consul, "Snapshot HTTP API".

It must not know where rows come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, assert_never

from impl.catalog.rows import CRITICAL, Check, Node, Service, Session, node_key, row_key
from impl.catalog.tables import CHECKS, NODES, SERVICES, SESSIONS, Invalid, KvEntry, Tables
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

INDEX_MAX: Final = 1 << 62
"""No restored index is greater: there is room for as many entries again in 64 bits."""
Place = tuple[int, str]
"""Where a row stands in the canonical order: the number of its table, its key there."""


def place(row: ArchivedRow) -> Place:
    """Where a row stands."""
    match row:
        case IndexRow(name):
            return (0, "") if name == KV_INDEX else (1, name)
        case KvRow(entry):
            return 2, entry.key
        case TombstoneRow(key):
            return 3, key
        case NodeRow(node):
            return 4, node_key(node.node)
        case ServiceRow(service):
            return 5, row_key(service.node, service.id)
        case CheckRow(check):
            return 6, row_key(check.node, check.check_id)
        case SessionRow(session):
            return 7, session.id
        case _:
            assert_never(row)


def put_row(tables: Tables, row: ArchivedRow, key: str | None = None) -> None:
    """Put a row into tables that are being built. `key`: its key, if that is known."""
    key = place(row)[1] if key is None else key
    match row:
        case IndexRow(name, value):
            if name == KV_INDEX:
                tables.kv_index = value
            else:
                tables.indexes.put(name, value)
        case KvRow(entry):
            tables.entries.put(key, entry)
        case TombstoneRow(_, index):
            tables.tombstones.put(key, index)
        case NodeRow(node):
            tables.nodes.put(key, node)
        case ServiceRow(service):
            tables.services.put(key, service)
        case CheckRow(check):
            tables.checks.put(key, check)
        case SessionRow(session):
            tables.sessions.put(key, session)
        case _:
            assert_never(row)


class Soundness:
    """Whether rows, which come in canonical order, are those of a state that a log could have built."""

    def __init__(self) -> None:
        self.newest = 0
        """The greatest index so far."""
        self._wrong = False
        self._kv_index: int | None = None
        self._indexes: dict[str, int] = {}
        self._nodes: set[str] = set()
        self._services: set[str] = set()
        self._healthy: dict[str, bool] = {}
        """For each check, whether sessions may depend on it."""
        self._holders: set[str] = set()
        """Sessions that hold a lock and have not come yet."""

    @property
    def begun(self) -> bool:
        """Whether the first row has come."""
        return self._kv_index is not None

    @property
    def sound(self) -> bool:
        """Whether what has come is a whole state."""
        return self.begun and not self._wrong and not self._holders and self.newest <= INDEX_MAX

    def add(self, row: ArchivedRow, key: str) -> None:
        """The next row."""
        match row:
            case IndexRow(name, value):
                self.newest = max(self.newest, value)
                if name == KV_INDEX:
                    self._kv_index = value
                    self._wrong |= value < 0
                else:
                    self._indexes[name] = value
                    self._wrong |= value <= 0
            case KvRow(entry):
                self._wrong |= not _is_ordered(entry, self._kv_index or 0)
                if entry.session:
                    self._holders.add(entry.session)
                    self._wrong |= entry.lock_index <= 0
            case TombstoneRow(_, index):
                self._wrong |= not 0 < index <= (self._kv_index or 0)
            case NodeRow(node):
                self._wrong |= not self._is_numbered(node, NODES)
                self._nodes.add(key)
            case ServiceRow(service):
                self._wrong |= not self._is_numbered(service, SERVICES) or node_key(service.node) not in self._nodes
                self._services.add(key)
            case CheckRow(check):
                self._wrong |= not self._is_numbered(check, CHECKS) or not self._has_what_it_needs(check)
                self._healthy[key] = check.status != CRITICAL
            case SessionRow(session):
                self._wrong |= not self._is_numbered(session, SESSIONS) or not self._rests(session)
                self._holders.discard(session.id)
            case _:
                assert_never(row)

    def _is_numbered(self, row: Node | Service | Check | Session, table: str) -> bool:
        return _is_ordered(row, self._indexes.get(table, 0))

    def _has_what_it_needs(self, check: Check) -> bool:
        if node_key(check.node) not in self._nodes:
            return False
        return not check.service_id or row_key(check.node, check.service_id) in self._services

    def _rests(self, session: Session) -> bool:
        if node_key(session.node) not in self._nodes:
            return False
        return all(self._healthy.get(row_key(session.node, check_id), False) for check_id in session.checks)


def _is_ordered(row: KvEntry | Node | Service | Check | Session, newest: int) -> bool:
    return 0 < row.create_index <= row.modify_index <= newest


class Staging:
    """What has arrived of another state."""

    def __init__(self, id: str, chunks: int = 0) -> None:
        self.id = id
        self.chunks = chunks
        self.tables = Tables()
        self._soundness = Soundness()
        self._last: Place = (-1, "")

    @property
    def begun(self) -> bool:
        """Whether the first row of an archive, the index of the KV store, has arrived."""
        return self._soundness.begun

    @property
    def sound(self) -> bool:
        """Whether what has arrived is a whole state."""
        return self._soundness.sound

    @property
    def newest(self) -> int:
        """The greatest index that has arrived."""
        return self._soundness.newest

    def add(self, rows: Sequence[ArchivedRow]) -> bool:
        """Stage rows; False, and none is: they do not follow those before in canonical order."""
        last, places = self._last, list(map(place, rows))
        for found in places:
            if found <= last:
                return False
            last = found
        self._last = last
        for row, (_, key) in zip(rows, places, strict=True):
            self._soundness.add(row, key)
            put_row(self.tables, row, key)
        return True


def begin(tables: Tables, id: str) -> None:
    """Forget what is staged, and stage another state if it has a name."""
    if tables.staging is not None:
        tables.retired.append(tables.staging.tables)
    tables.staging = Staging(id) if id else None


def stage(tables: Tables, id: str, number: int, rows: Sequence[ArchivedRow]) -> None:
    """Stage the next rows. Raises Invalid: it is not the next chunk of this restore, or its rows are out of order."""
    staging = _under_way(tables, id)
    if number != staging.chunks + 1:
        raise Invalid(f'chunk {number} of restore "{id}" does not follow chunk {staging.chunks}')
    if not staging.add(rows):
        raise Invalid(f'the rows of chunk {number} of restore "{id}" are not in order')
    staging.chunks = number


def commit(tables: Tables, id: str, chunks: int, index: int) -> None:
    """What is staged takes the place of all else. Raises Invalid: a chunk is missing, or it is not a state."""
    staging = _under_way(tables, id)
    if chunks != staging.chunks:
        raise Invalid(f'restore "{id}" has {staging.chunks} chunks, not {chunks}')
    if not staging.sound:
        raise Invalid(f'the rows of restore "{id}" are not those of a state')
    tables.adopt(staging.tables)
    tables.shift += max(0, staging.newest - index)
    tables.staging = None
    tables.replaced = True


def _under_way(tables: Tables, id: str) -> Staging:
    staging = tables.staging
    if staging is None or staging.id != id:
        raise Invalid(f'no restore "{id}" is under way')
    return staging
