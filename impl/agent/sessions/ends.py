"""Ends of sessions that stand in the leader's log and are not applied yet.

The leader refuses a lock by what it has applied: which lock-delays began, which sessions live. An end of a session that
was proposed a moment ago would be missed: the acquire behind it in the log would find the lock free the moment it was
lost. So what depends on a session whose end is on its way waits for that. (Consul does not wait: there a lock-delay has
this gap.)

It must not hold up anybody else: it knows of which sessions and keys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar, assert_never

from impl.catalog import sessions
from impl.catalog.commands import (
    Deregister,
    KvAcquire,
    KvCas,
    KvDelete,
    KvDeleteCas,
    KvDeleteTree,
    KvRelease,
    KvSet,
    ReapTombstones,
    Register,
    RestoreBegin,
    RestoreChunk,
    RestoreCommit,
    SessionCreate,
    SessionDestroy,
    Transaction,
    Write,
)
from impl.catalog.rows import CRITICAL
from impl.catalog.tables import Tables
from impl.catalog.transactions import CheckOperation, KvOperation, NodeOperation, ServiceOperation

Acquired = tuple[str, str]
"""(key, session)."""


def acquired(command: Write) -> list[Acquired]:
    """The locks that a command wants."""
    match command:
        case KvAcquire(key, session=session):
            return [(key, session)]
        case Transaction(operations):
            locks = [each for each in operations if isinstance(each, KvOperation) and each.verb == "lock"]
            return [(lock.key, lock.session) for lock in locks]
        case _:
            return []


def ended(tables: Tables, command: Write) -> list[str]:
    """The sessions that a command may end. One that begins later cannot be meant: the node or check that ends it would
    have to be there again.
    """
    match command:
        case SessionDestroy(session_id):
            return [session_id]
        case Deregister(node, service_id, check_id):
            if check_id and not service_id:
                return [session.id for session in sessions.of_check(tables, node, check_id)]
            return _of_nodes(tables, {node})
        case Register(checks=checks):
            return [
                session.id
                for check in checks
                if check.status == CRITICAL
                for session in sessions.of_check(tables, check.node, check.check_id)
            ]
        case Transaction(operations):
            return _of_nodes(tables, {node for each in operations if (node := _node(each))})
        case (
            KvSet()
            | KvCas()
            | KvDelete()
            | KvDeleteCas()
            | KvDeleteTree()
            | KvAcquire()
            | KvRelease()
            | ReapTombstones()
            | SessionCreate()
            | RestoreBegin()
            | RestoreChunk()
            | RestoreCommit()  # what was lost before a restore does not count after it
        ):
            return []
        case _:
            assert_never(command)


def _node(operation: KvOperation | NodeOperation | ServiceOperation | CheckOperation) -> str:
    match operation:
        case KvOperation():
            return ""
        case NodeOperation(_, row) | ServiceOperation(_, row) | CheckOperation(_, row):
            return row.node
        case _:
            assert_never(operation)


def _of_nodes(tables: Tables, nodes: set[str]) -> list[str]:
    return [session.id for node in nodes for session in sessions.of_node(tables, node)]


PLAIN: Final = (
    *(KvSet, KvCas, KvDelete, KvDeleteCas, KvDeleteTree, ReapTombstones, SessionCreate),
    *(RestoreBegin, RestoreChunk, RestoreCommit),
)
"""Commands that neither want a lock nor end a session."""

Name = TypeVar("Name", str, Acquired)


class SessionEnds:
    """What one server has proposed; `settled` is called when an end is not on its way any more."""

    def __init__(self, settled: Callable[[], None]) -> None:
        self._settled = settled
        self._ending: Counter[str] = Counter()
        self._acquiring: Counter[Acquired] = Counter()

    @contextmanager
    def proposing(self, tables: Tables, command: Write) -> Iterator[None]:
        """While this command was proposed and not answered."""
        ending, acquiring = ended(tables, command), acquired(command)
        self._ending.update(ending)
        self._acquiring.update(acquiring)
        try:
            yield
        finally:
            _forget(self._ending, ending)
            _forget(self._acquiring, acquiring)
            if ending:
                self._settled()

    def is_ending(self, session_id: str) -> bool:
        """Whether the session's end is on its way."""
        return session_id in self._ending

    def concern(self, tables: Tables, command: Write) -> bool:
        """Whether a command wants a lock whose holder, or whoever is about to hold it, is about to end."""
        if not self._ending:
            return False
        wanted = {key for key, _ in acquired(command)}
        holders = {entry.session for key in wanted if (entry := tables.entries.get(key)) is not None}
        holders |= {session for key, session in self._acquiring if key in wanted}
        return any(holder in self._ending for holder in holders)


def _forget(counted: Counter[Name], names: list[Name]) -> None:
    for name in names:
        counted[name] -= 1
        if not counted[name]:
            del counted[name]
