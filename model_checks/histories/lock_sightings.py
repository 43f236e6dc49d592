"""A history of sessions and locks, sorted by what each operation shows: rows of lock keys, signs of life and of death
of sessions, and the holds that the rows name.

A *row* is a lock key as the state machine has it: (CreateIndex, LockIndex, ModifyIndex, Session). A *hold* is named by
(CreateIndex, LockIndex): the sequencer with which its holder fences. What an operation shows was so at some moment
between its call and its return. Source: Consul, "Session HTTP Endpoint", "Sessions and Distributed Locks Overview".

It must not judge: `locks` does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from model_checks.histories.findings import read_as
from model_checks.histories.operations import Operation, Outcome
from model_checks.histories.register import Model, UnknownOperation

Hold = tuple[int, int]
"""(CreateIndex, LockIndex) of a key; later holds of the key are greater."""

INVALID_SESSION = "invalid session"
"""What an acquire with a session that does not exist is told, among other words."""


class Row(msgspec.Struct, frozen=True, gc=False):
    """A lock key at the log index `modify`."""

    create: int
    lock: int
    modify: int
    session: str | None = None

    @property
    def hold(self) -> Hold:
        """The latest hold of the key at that index."""
        return self.create, self.lock


class Sighting(msgspec.Struct, frozen=True, gc=False):
    """An operation that shows a row."""

    row: Row
    by: Operation


class Written(msgspec.Struct, frozen=True, gc=False):
    """A write under a lock: what its client held when it asked, and the log index of the write if it is known."""

    value: int
    session: str
    hold: Hold | None
    """None: the client did not know its sequencer, and only its session was checked."""
    checked_index: int | None
    """The ModifyIndex of the lock key that was checked as well, if any."""
    index: int | None
    by: Operation


class Session(msgspec.Struct):
    """A session by all that the history says of it. Times in ns."""

    id: str
    ttl_ns: int | None
    lock_delay_ns: int
    bound: bool
    """It depends on the health of an agent, and may end with it at any time."""
    created: Operation
    renewals: list[Operation] = []
    """Those that were acknowledged, its creation among them."""
    unknown_renewal: bool = False
    alive: list[Operation] = []
    dead: list[Operation] = []
    destroys: list[Operation] = []
    """Those that may have happened."""
    releases: dict[Any, list[Operation]] = {}
    """By key, those that may have happened."""


class LockHistory(msgspec.Struct):
    """Everything, by session and by key. All lists are in order of invocation."""

    sessions: dict[str, Session] = {}
    sightings: dict[Any, list[Sighting]] = {}
    absences: dict[Any, list[Operation]] = {}
    """Reads that found no such key."""
    acquired: dict[Any, list[Operation]] = {}
    """Acknowledged acquires."""
    writes: dict[Any, list[Written]] = {}
    """Writes under a lock that may have happened."""
    reads: dict[Any, list[Operation]] = {}
    """Reads of what the lock protects."""
    refused_writes: int = 0


class _Created(msgspec.Struct, frozen=True):
    session: str
    ttl: float | None
    lock_delay: float
    bound: bool


class _Holder(msgspec.Struct, frozen=True):
    session: str
    row: Row | None = None


class _Write(msgspec.Struct, frozen=True):
    value: int
    session: str
    hold: Hold | None = None
    checked_index: int | None = None
    index: int | None = None


class ProtectedValue(msgspec.Struct, frozen=True):
    """The answer of a read of what a lock protects."""

    value: int | None
    index: int = 0


def lock_history(operations: Iterable[Operation]) -> LockHistory:
    """Sort the operations. Raises UnknownOperation."""
    found = LockHistory()
    operations = list(operations)
    for operation in operations:  # a session's creation may be acknowledged after others have seen it
        if operation.f == "create" and operation.outcome is Outcome.OK:
            made = read_as(operation, operation.answer, _Created, Model.LOCK)
            ttl_ns = None if made.ttl is None else round(made.ttl * 1e9)
            session = Session(made.session, ttl_ns, round(made.lock_delay * 1e9), made.bound, operation)
            session.renewals.append(operation)
            session.alive.append(operation)
            found.sessions[made.session] = session
    for operation in operations:
        _sort(found, operation)
    return found


def _sort(found: LockHistory, operation: Operation) -> None:
    ok, happened = operation.outcome is Outcome.OK, operation.outcome is not Outcome.FAIL
    match operation.f:
        case "create":
            pass
        case "renew" | "info":
            session = _session(found, operation, operation.key)
            if ok:
                (session.alive if operation.answer else session.dead).append(operation)
            if operation.f == "renew" and ok and operation.answer:
                session.renewals.append(operation)
            session.unknown_renewal |= operation.f == "renew" and operation.outcome is Outcome.INFO
        case "destroy":
            session = _session(found, operation, operation.key)
            if happened:
                session.destroys.append(operation)
            if ok:
                session.dead.append(operation)
        case "acquire":
            _acquire(found, operation)
        case "release":
            holder = read_as(operation, operation.argument, _Holder, Model.LOCK)
            session = _session(found, operation, holder.session)
            if happened:
                session.releases.setdefault(operation.key, []).append(operation)
            if ok:
                session.alive.append(operation)
        case "read":
            if ok and operation.answer is None:
                found.absences.setdefault(operation.key, []).append(operation)
            elif ok:
                _see(found, operation, read_as(operation, operation.answer, Row, Model.LOCK))
        case "write":
            _write(found, operation)
        case "read-protected":
            if ok:
                found.reads.setdefault(operation.key, []).append(operation)
        case other:
            raise UnknownOperation(f"the model lock has no operation {other!r} (process {operation.process})")


def _acquire(found: LockHistory, operation: Operation) -> None:
    holder = read_as(operation, operation.argument, _Holder, Model.LOCK)
    session = _session(found, operation, holder.session)
    if operation.outcome is Outcome.OK:
        session.alive.append(operation)
        found.acquired.setdefault(operation.key, []).append(operation)
        answer = read_as(operation, operation.answer, _Holder, Model.LOCK)
        if answer.row is not None:
            _see(found, operation, answer.row)
    elif operation.outcome is Outcome.FAIL and INVALID_SESSION in str(operation.error):
        session.dead.append(operation)


def _write(found: LockHistory, operation: Operation) -> None:
    asked = read_as(operation, operation.argument, _Write, Model.LOCK)
    session = _session(found, operation, asked.session)
    if operation.outcome is Outcome.FAIL:
        found.refused_writes += "failed" in str(operation.error)
        return
    index = None
    if operation.outcome is Outcome.OK:
        session.alive.append(operation)
        index = read_as(operation, operation.answer, _Write, Model.LOCK).index
    written = Written(asked.value, asked.session, asked.hold, asked.checked_index, index, operation)
    found.writes.setdefault(operation.key, []).append(written)


def _see(found: LockHistory, operation: Operation, row: Row) -> None:
    found.sightings.setdefault(operation.key, []).append(Sighting(row, operation))
    if row.session is not None and operation.f != "acquire":
        session = found.sessions.get(row.session)
        if session is not None:  # one whose creation nobody was told of may hold nothing, but was never acknowledged
            session.alive.append(operation)


def _session(found: LockHistory, operation: Operation, name: Any) -> Session:
    session = found.sessions.get(name)
    if session is None:
        raise UnknownOperation(f"process {operation.process}: {operation.f} of a session that nobody created: {name!r}")
    return session
