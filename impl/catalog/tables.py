"""All tables of the state store, the indexes of their groups of rows, and what a command touched.

An *index* is the log index of the last change of a table ("nodes", "services", "checks", "sessions") or of a finer
group of rows ("node.NAME", "service.NAME", "service_kind.KIND", "connect.NAME", "service_last_extinction",
"connect_last_extinction", "node_last_extinction"). The index of an answer is made of these, and who waits for a change
of the answer waits for them to be touched. Source: Consul, "Blocking Queries"; the index table of its state store.

It must not decide what a command means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec

from impl.catalog.indexed_table import Grouping, IndexedTable, Journal, undo
from impl.catalog.rows import Check, Node, Service, Session, node_key, row_key, service_key

if TYPE_CHECKING:
    from impl.catalog.restore import Staging

NODES = "nodes"
SERVICES = "services"
CHECKS = "checks"
SESSIONS = "sessions"
SERVICE_EXTINCTION = "service_last_extinction"
CONNECT_EXTINCTION = "connect_last_extinction"
NODE_EXTINCTION = "node_last_extinction"


class KvEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One key as Consul stores it."""

    key: str
    flags: int
    value: bytes
    create_index: int
    modify_index: int
    lock_index: int = 0
    """How often its lock was acquired."""
    session: str = ""
    """Who holds its lock."""


class Invalid(Exception):
    """The command cannot be carried out at all; the text is what its client reads. Nothing was changed."""


def _if_any(name: str) -> tuple[str, ...]:
    return (name,) if name else ()


def _keys_of_checks(node_and_checks: tuple[str, Iterable[str]]) -> tuple[str, ...]:
    node, checks = node_and_checks
    return tuple({row_key(node, check_id): None for check_id in checks})


class Tables:
    """The tables. Whoever changes them says with `touch` or `touch_key` what may look different now."""

    def __init__(self) -> None:
        self.entries: IndexedTable[KvEntry] = IndexedTable({"session": Grouping(attrgetter("session"), _if_any)})
        self.tombstones: IndexedTable[int] = IndexedTable()
        self.nodes: IndexedTable[Node] = IndexedTable({"id": Grouping(attrgetter("id"), _if_any)})
        self.services: IndexedTable[Service] = IndexedTable(
            {
                "service": Grouping(attrgetter("service"), lambda service: (service_key(service),)),
                "connect": Grouping(attrgetter("connect"), lambda service: _if_any(service_key(service))),
                "node": Grouping(attrgetter("node"), lambda node: (node_key(node),)),
            }
        )
        self.checks: IndexedTable[Check] = IndexedTable(
            {
                "node": Grouping(attrgetter("node"), lambda node: (node_key(node),)),
                "instance": Grouping(attrgetter("node", "service_id"), lambda ids: (row_key(*ids),)),
                "service": Grouping(attrgetter("service_name"), lambda name: _if_any(service_key(name))),
                "status": Grouping(attrgetter("status"), lambda status: (status,)),
            }
        )
        self.sessions: IndexedTable[Session] = IndexedTable(
            {
                "node": Grouping(attrgetter("node"), lambda node: (node_key(node),)),
                "check": Grouping(attrgetter("node", "checks"), _keys_of_checks),
            }
        )
        self.indexes: IndexedTable[int] = IndexedTable()
        self.kv_index = 0
        """The index of the KV store, beside the others since every write raises it; 0: nothing was ever written."""
        self.shift = 0
        """What an entry's index in the log lacks of its index here: a restored state may be of a longer log."""
        self.staging: Staging | None = None
        """A restore that is under way (`impl/catalog/restore.py`)."""
        self.retired: list[Tables] = []
        """What a restore replaced since this list was last emptied: in pieces, with `release`, since a large state
        takes long to free."""
        self.replaced = False
        """Whether a restore has replaced everything since this was last reset."""
        self.touched: list[str] = []
        """Names of the indexes that rose or vanished since this list was last emptied."""
        self.touched_keys: list[str] = []
        """Keys of the KV store that changed since this list was last emptied."""
        self.session_changes: list[tuple[str, Session | None]] = []
        """Sessions that began, or ended (None), since this list was last emptied."""
        self.lost: list[tuple[str, int]] = []
        """(key, lock-delay in ns) of the holds that ended with their session since this list was last emptied."""

    def index(self, *names: str) -> int:
        """The greatest of the named indexes; 0 if none was ever set."""
        return max((self.indexes.get(name) or 0 for name in names), default=0)

    def touch(self, index: int, *names: str) -> None:
        """Raise indexes."""
        for name in names:
            self.indexes.put(name, index)
        self.touched.extend(names)

    def forget(self, name: str) -> None:
        """An index vanishes with the last row of its group."""
        self.indexes.pop(name)
        self.touched.append(name)

    def touch_key(self, index: int, key: str) -> None:
        """A key of the KV store was created, changed or deleted."""
        self.kv_index = index
        self.touched_keys.append(key)

    def adopt(self, other: Tables) -> None:
        """Take the rows and indexes of other tables, whose owner forgets them. Takes the same time whatever there is.

        Whoever holds a view goes on reading what it was made of.
        """
        old = Tables()
        for name in ("entries", "tombstones", "nodes", "services", "checks", "sessions", "indexes", "kv_index"):
            setattr(old, name, getattr(self, name))
            setattr(self, name, getattr(other, name))
        self.retired.append(old)

    def release(self, count: int) -> bool:
        """Free up to `count` rows of tables that nobody uses any more; False: there are none."""
        for table in (self.entries, self.tombstones, self.nodes, self.services, self.checks, self.sessions):
            if len(table):
                table.drop_last(count)
                return True
        if len(self.indexes):
            self.indexes.drop_last(count)
            return True
        return False

    @contextmanager
    def atomic(self) -> Iterator[None]:
        """What is done within is done whole, or taken back if it raises. Does not nest."""
        journal: Journal = []
        tables = (
            self.entries,
            self.tombstones,
            self.nodes,
            self.services,
            self.checks,
            self.sessions,
            self.indexes,
        )
        lists: tuple[list[Any], ...] = (self.touched, self.touched_keys, self.session_changes, self.lost)
        lengths = [len(each) for each in lists]
        kv_index = self.kv_index
        for table in tables:
            table.journal = journal
        try:
            yield
        except BaseException:
            for table in tables:
                table.journal = None
            undo(journal)
            self.kv_index = kv_index
            for each, length in zip(lists, lengths, strict=True):
                del each[length:]
            raise
        finally:
            for table in tables:
                table.journal = None
