"""The naive oracle for locks: does some order of the operations on one lock explain every answer? By trying all.

Slow, short, and obviously right; without time (TTLs, lock-delays) and without writes under the lock. Whatever `locks`
objects to, no order may explain. It shares with `locks` how an answer is read, nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from model_checks.histories.lock_sightings import INVALID_SESSION, Row
from model_checks.histories.operations import FOREVER, Operation, Outcome


class _Lock(msgspec.Struct, frozen=True):
    """The lock's row and the sessions. Log indexes are known once an answer has shown them, None before."""

    lock: int = 0
    """0: there is no such key."""
    session: str | None = None
    create: int | None = None
    modify: int | None = None
    floor: int = 0
    """The latest index is greater than this, or is `modify`."""
    ended: frozenset[str] = frozenset()


def _changed(lock: _Lock, session: str | None) -> _Lock:
    floor = lock.floor if lock.modify is None else max(lock.floor, lock.modify)
    taken = session is not None
    return msgspec.structs.replace(lock, lock=lock.lock + taken, session=session, modify=None, floor=floor)


def _shown(lock: _Lock, row: Row) -> _Lock | None:
    """The lock with what the row says of its indexes; None: it is not that row."""
    if (lock.lock, lock.session) != (row.lock, row.session):
        return None
    if lock.modify not in (None, row.modify) or lock.create not in (None, row.create):
        return None
    if lock.modify is None and row.modify <= lock.floor:
        return None
    return msgspec.structs.replace(lock, create=row.create, modify=row.modify)


def _step(lock: _Lock, operation: Operation) -> _Lock | None:
    """The lock after an operation took effect; None: it cannot have done so here, with this answer."""
    ok = operation.outcome is Outcome.OK
    match operation.f:
        case "read":
            if operation.answer is None:
                return lock if lock.lock == 0 else None
            return _shown(lock, msgspec.convert(operation.answer, Row))
        case "renew" | "info":
            return lock if (operation.key not in lock.ended) == operation.answer else None
        case "destroy":
            ended = lock.ended | {operation.key}
            after = _changed(lock, None) if lock.session == operation.key else lock
            return msgspec.structs.replace(after, ended=ended)
        case "acquire":
            session = operation.argument["session"]
            if operation.outcome is Outcome.FAIL:
                return lock if session in lock.ended else None
            if session in lock.ended or lock.session not in (None, session):
                return None
            after = lock if lock.session == session else _changed(lock, session)
            row = operation.answer.get("row") if ok else None
            return after if row is None else _shown(after, msgspec.convert(row, Row))
        case f:
            assert f == "release"
            return _changed(lock, None) if lock.session == operation.argument["session"] else None


def explainable(operations: Sequence[Operation]) -> bool:
    """Whether some order of the operations, each between its call and its return, explains every answer. Operations of
    unknown outcome may be left out; refusals say something only if they say that the session has ended.
    """
    told = [
        operation
        for operation in operations
        if operation.outcome is not Outcome.FAIL or INVALID_SESSION in str(operation.error)
    ]
    changes = [o for o in told if o.outcome is not Outcome.INFO or o.f in ("acquire", "release", "destroy")]
    required = frozenset(place for place, operation in enumerate(changes) if operation.outcome is not Outcome.INFO)
    dead: set[tuple[frozenset[int], _Lock]] = set()

    def explain(remaining: frozenset[int], lock: _Lock) -> bool:
        if not remaining & required:
            return True
        if (remaining, lock) in dead:
            return False
        deadline = min((changes[place].ret for place in remaining), default=FOREVER)
        for place in sorted(remaining):
            if changes[place].call > deadline:
                continue
            after = _step(lock, changes[place])
            if after is not None and explain(remaining - {place}, after):
                return True
        dead.add((remaining, lock))
        return False

    return explain(frozenset(range(len(changes))), _Lock())
