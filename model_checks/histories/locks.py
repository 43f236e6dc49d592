"""Sessions and locks with fencing: what must hold of a history of them, decided from the history.

mutual exclusion   holds of a key, named by (CreateIndex, LockIndex), follow each other in the order of ModifyIndex, and
                   each has one session: no two sessions get one sequencer, and a new hold has a greater one
ended sessions     what is invoked after a session was seen to have ended does not find it, nor anything that it holds
holding            a lock stays with its session until that releases it or ends
TTL                a session that ends by itself ends no earlier than its TTL after the *invocation* of its last
                   acknowledged renewal, and, where one server led all the time, within twice its TTL
lock-delay         see below
fencing            a write that checks the lock's ModifyIndex and session happens while its hold is in force, so such
                   writes are in the order of holds; one that checks its session alone, while that has the lock; what is
                   written is a linearizable register

Unknown outcomes are concurrent with everything after them: a destroy or a release that may have happened excuses what
it could explain. Each objection is an argument from a few operations, which are its counterexample.

*Lock-delay.* When a lock was lost with its session (not released), nobody acquires the key before the delay has passed
since that moment. The history gives certain bounds: the moment lies after the invocation of whatever showed the holder
alive, and after the earliest thing that could have ended its session (a destroy's invocation, the TTL's end); the next
hold was acquired before the first answer that shows it. If those are closer than the delay, it was ignored. Consul
keeps delays in the memory of the leader alone; Comitia in that of every server, which starts them as it applies the
loss. So changes of the leader excuse nothing here; but a server that restored a snapshot knows of no earlier loss, and
where one did so in between (`Circumstances.restores`) nothing is concluded.

The checker is sound and not complete: what only a search over all orders of all keys could find is left out, but for
the protected registers, which `search` judges.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from model_checks.histories.circumstances import ALONE, Circumstances, covers
from model_checks.histories.findings import Findings, Objection, going_back
from model_checks.histories.lock_sightings import (
    Hold,
    LockHistory,
    ProtectedValue,
    Session,
    Sighting,
    Written,
    lock_history,
)
from model_checks.histories.operations import Operation, Outcome

EXPIRY_ALLOWANCE_NS = 5_000_000_000
"""Beyond twice the TTL: the leader looks four times a second, its destroy must be committed, and may be tried again."""

EXCLUSION = "a lock has one holder at a time"
ENDED = "a session that has ended holds nothing"
HELD = "a lock is held until it is released or its session ends"
TTL = "a session lives for its TTL after it was renewed"
EXPIRY = "a session that is not renewed ends within twice its TTL"
LOCK_DELAY = "lock-delay: nobody acquires a lock so soon after its session ended"
FENCING = "fencing: a write under a lock happens while the lock is held"
PROTECTED = "what a lock protects is a linearizable register"


class Certain(msgspec.Struct):
    """A hold as sightings bound it: it was in force all the time from `first`'s return to `last`'s call."""

    session: str
    first: Operation
    last: Operation


def check_locks(operations: Iterable[Operation], circumstances: Circumstances = ALONE) -> Findings:
    """Judge a history of the model `lock`. Raises UnknownOperation."""
    history = lock_history(operations)
    lost = list(losses(history))
    holds = {key: certain_holds(seen) for key, seen in history.sightings.items()}
    sessions = history.sessions.values()
    figures = {
        "sessions": len(sessions),
        "holds": sum(len(each) for each in holds.values()),
        "holders": len({known.session for each in holds.values() for known in each.values()}),
        "locks_lost": len(lost),
        "lock_delays_judged": len(delays_judged(lost, circumstances)),
        "sessions_expired": sum(bool(s.dead) and not s.destroys and s.ttl_ns is not None for s in sessions),
        "renewals": sum(len(session.renewals) - 1 for session in sessions),
        "fenced_writes": sum(written.index is not None for each in history.writes.values() for written in each),
        "fenced_writes_refused": history.refused_writes,
    }
    return Findings(
        checker="histories/locks",
        objections=tuple(objections(history, lost, circumstances)),
        registers={f"protected {key}": register(history, key) for key in sorted(history.writes, key=str)},
        register_property=PROTECTED,
        figures=figures,
        nothing_learnt="" if figures["holds"] else "no operation showed a lock that was held",
    )


def register(history: LockHistory, key: Any) -> list[Operation]:
    """What was done to what the lock `key` protects, as reads and writes of a register."""
    reads = [
        msgspec.structs.replace(read, f="read", answer=msgspec.convert(read.answer, ProtectedValue).value)
        for read in history.reads.get(key, [])
    ]
    writes = [
        msgspec.structs.replace(written.by, f="write", argument=written.value)
        for written in history.writes.get(key, [])
    ]
    return sorted([*reads, *writes], key=lambda operation: operation.call)


def objections(history: LockHistory, lost: Sequence[Loss], circumstances: Circumstances) -> Iterator[Objection]:
    """What is wrong, but for the protected registers."""
    for key in sorted(history.sightings, key=str):
        seen = sorted(history.sightings[key], key=lambda sighting: (sighting.row.modify, sighting.by.ret))
        yield from _rows(key, seen)
        yield from _real_time(key, history.sightings[key])
        holds = certain_holds(history.sightings[key])
        yield from _inside(key, holds, history)
    for loss in lost:
        yield from _lost(loss)
    for session in history.sessions.values():
        gone = [*session.dead, *(loss.shown_by for loss in lost if loss.session is session)]
        yield from _ended(session)
        yield from _time_to_live(session, gone, circumstances)
    yield from _delays(lost, circumstances)
    for key in sorted(history.writes, key=str):
        yield from _fenced(key, history.writes[key], history.sightings.get(key, []), history.reads.get(key, []))


# --------------------------------------------------------------------------------------------------- mutual exclusion


def _rows(key: Any, seen: list[Sighting]) -> Iterator[Objection]:
    """In the order of the log: one row an index, holds that only grow, one session a hold, and none after its end."""
    for before, after in itertools.pairwise(seen):
        old, new = before.row, after.row
        reason = ""
        if old.modify == new.modify:
            if old != new:
                reason = f"two rows at the same ModifyIndex {new.modify}"
        elif new.hold < old.hold:
            reason = f"{_named(new.hold)} at index {new.modify} follows {_named(old.hold)} at index {old.modify}"
        elif new.hold == old.hold and new.session is not None and new.session != old.session:
            holder = "nobody" if old.session is None else f"session {old.session}"
            reason = f"{_named(new.hold)} is {holder}'s at index {old.modify}, session {new.session}'s at {new.modify}"
        if reason:
            yield Objection(EXCLUSION, reason, key, (before.by, after.by))


def _real_time(key: Any, seen: list[Sighting]) -> Iterator[Objection]:
    """What was invoked after an answer does not show an older row."""
    for (newer, first), (older, then) in going_back([(sighting.row.modify, sighting.by) for sighting in seen]):
        yield Objection(EXCLUSION, f"ModifyIndex {older} was shown after {newer}", key, (first, then))


def certain_holds(seen: list[Sighting]) -> dict[Hold, Certain]:
    """The holds of a key that sightings show."""
    holds: dict[Hold, Certain] = {}
    for sighting in seen:
        row, by = sighting.row, sighting.by
        if row.session is None:
            continue
        known = holds.setdefault(row.hold, Certain(row.session, by, by))
        if by.ret < known.first.ret:
            known.first = by
        if by.call > known.last.call:
            known.last = by
    return holds


def _inside(key: Any, holds: dict[Hold, Certain], history: LockHistory) -> Iterator[Objection]:
    """Nothing happens wholly inside a hold that cannot: an acquire by another session, a release by its own."""
    acquired = history.acquired.get(key, [])
    calls = [operation.call for operation in acquired]
    for hold, known in holds.items():
        for operation in acquired[_after(calls, known.first.ret) : _after(calls, known.last.call)]:
            if operation.ret < known.last.call and operation.argument["session"] != known.session:
                reason = f"{_named(hold)} was session {known.session}'s before and after another session acquired it"
                yield Objection(EXCLUSION, reason, key, (known.first, operation, known.last))
        holder = history.sessions.get(known.session)
        for release in holder.releases.get(key, []) if holder is not None else []:
            if release.outcome is Outcome.OK and known.first.ret < release.call and release.ret < known.last.call:
                reason = f"{_named(hold)} was released, and is still there"
                yield Objection(EXCLUSION, reason, key, (known.first, release, known.last))


def _after(calls: list[int], position: int) -> int:
    """How many of the sorted `calls` are not after `position`."""
    return bisect.bisect_right(calls, position)


# ----------------------------------------------------------------------------------------------------- ends of sessions


def _ended(session: Session) -> Iterator[Objection]:
    """What is invoked after the first answer that says that it has ended does not find it."""
    if not session.dead:
        return
    end = min(session.dead, key=lambda operation: operation.ret)
    late = max(session.alive, key=lambda operation: operation.call)
    if late.call > end.ret:
        reason = f"session {session.id} had ended, and later {_sign_of_life(late)}"
        yield Objection(ENDED, reason, late.key, (end, late))


def _sign_of_life(operation: Operation) -> str:
    return {
        "renew": "could be renewed",
        "info": "was there",
        "acquire": "acquired a lock",
        "release": "released a lock",
        "read": "held a lock",
        "write": "wrote under its lock",
    }.get(operation.f, operation.f)


class Loss(msgspec.Struct, frozen=True):
    """A hold that ended though its session did not release it: the session had ended, before `shown_by` returned."""

    key: Any
    hold: Hold
    session: Session
    held_by: Operation
    """The latest invocation that shows the hold."""
    shown_by: Operation
    next_by: Operation | None
    """What shows a later hold first."""


def losses(history: LockHistory) -> Iterator[Loss]:
    """The holds that were certainly lost, each with what shows it."""
    for key, seen in history.sightings.items():
        later, free = _first_after(seen), _first_free(seen)
        absent = history.absences.get(key, [])
        for hold, known in certain_holds(seen).items():
            session = history.sessions.get(known.session)
            if session is None:
                continue
            deleted = [operation for operation in absent if operation.call > known.first.ret]
            ends = [end for end in (later.get(hold), free.get(hold), *deleted) if end is not None]
            if not ends:
                continue
            shown_by = min(ends, key=_returned)
            # A release that returned before the hold was last shown has not ended it.
            releases = session.releases.get(key, [])
            if not any(known.last.call < release.ret and release.call < shown_by.ret for release in releases):
                yield Loss(key, hold, session, known.last, shown_by, later.get(hold))


def _returned(operation: Operation) -> int:
    return operation.ret


def _first_after(seen: list[Sighting]) -> dict[Hold, Operation]:
    """For each hold, the first answer that shows a later one of the key."""
    found: dict[Hold, Operation] = {}
    first: Operation | None = None
    ordered = sorted(seen, key=lambda sighting: sighting.row.hold, reverse=True)
    for hold, group in itertools.groupby(ordered, key=lambda sighting: sighting.row.hold):
        if first is not None:
            found[hold] = first
        returned = min((sighting.by for sighting in group), key=_returned)
        first = returned if first is None else min(first, returned, key=_returned)
    return found


def _first_free(seen: list[Sighting]) -> dict[Hold, Operation]:
    """For each hold, the first answer that shows it to be over while nobody has the lock again."""
    found: dict[Hold, Operation] = {}
    for sighting in seen:
        if sighting.row.session is None:
            hold = sighting.row.hold
            found[hold] = min(found.get(hold, sighting.by), sighting.by, key=_returned)
    return found


def _lost(loss: Loss) -> Iterator[Objection]:
    """A session that lost a hold without releasing it has ended."""
    late = max(loss.session.alive, key=lambda operation: operation.call)
    if late.call > loss.shown_by.ret:
        reason = f"session {loss.session.id} lost {_named(loss.hold)} and released nothing, yet it lives"
        yield Objection(HELD, reason, loss.key, (loss.held_by, loss.shown_by, late))


def _time_to_live(session: Session, gone: list[Operation], circumstances: Circumstances) -> Iterator[Objection]:
    renewed = max(session.renewals, key=lambda operation: operation.call_ns)
    if gone and not session.bound:
        end = min(gone, key=lambda operation: operation.ret)
        if not any(destroy.call < end.ret for destroy in session.destroys):
            lived_ns = end.ret_ns - renewed.call_ns
            if session.ttl_ns is None:
                yield Objection(TTL, f"session {session.id} has no TTL, and ended", session.id, (renewed, end))
            elif lived_ns < session.ttl_ns:
                reason = f"session {session.id} ended within {_s(lived_ns)} of its renewal; its TTL is "
                yield Objection(TTL, reason + _s(session.ttl_ns), session.id, (renewed, end))
    if session.ttl_ns is None or session.unknown_renewal:
        return
    late = max(session.alive, key=lambda operation: operation.call)
    before = [operation for operation in session.renewals if operation is not late]
    if not before:
        return
    last = max(before, key=lambda operation: operation.ret_ns)
    over_ns = 2 * session.ttl_ns + EXPIRY_ALLOWANCE_NS
    if late.call_ns - last.ret_ns > over_ns and covers(circumstances.reigns, last.call_ns, late.call_ns):
        reason = f"session {session.id} lives {_s(late.call_ns - last.ret_ns)} after its last renewal; its TTL is "
        yield Objection(EXPIRY, reason + _s(session.ttl_ns), session.id, (last, late))


def earliest_end_ns(loss: Loss) -> int:
    """The lost hold's session cannot have ended before this."""
    session = loss.session
    alive = [operation.call_ns for operation in session.alive if operation.call < loss.shown_by.ret]
    causes = [destroy.call_ns for destroy in session.destroys]
    if session.ttl_ns is not None:
        causes.append(max(operation.call_ns for operation in session.renewals) + session.ttl_ns)
    cause = 0 if session.bound or not causes else min(causes)
    return max([cause, *alive])


def _delays(lost: Sequence[Loss], circumstances: Circumstances) -> Iterator[Objection]:
    for loss in delays_judged(lost, circumstances):
        assert loss.next_by is not None
        since_ns = earliest_end_ns(loss)
        waited_ns = loss.next_by.ret_ns - since_ns
        if waited_ns < loss.session.lock_delay_ns:
            reason = f"{_named(loss.hold)} was lost with session {loss.session.id}, whose lock-delay is "
            reason += f"{_s(loss.session.lock_delay_ns)}, and acquired within {_s(waited_ns)} of it"
            ends = [destroy for destroy in loss.session.destroys if destroy.call_ns <= since_ns]
            yield Objection(LOCK_DELAY, reason, loss.key, (loss.held_by, *ends, loss.next_by))


def delays_judged(lost: Sequence[Loss], circumstances: Circumstances) -> list[Loss]:
    """The losses after which a lock-delay had to be kept, by all servers that know of it."""
    return [
        loss
        for loss in lost
        if loss.next_by is not None
        and loss.session.lock_delay_ns
        and not circumstances.restored_between(earliest_end_ns(loss), loss.next_by.ret_ns)
    ]


# -------------------------------------------------------------------------------------------------------------- fencing


def _fenced(key: Any, writes: list[Written], seen: list[Sighting], reads: list[Operation]) -> Iterator[Objection]:
    by_value = {written.value: written for written in writes}
    indexes = {written.value: (written.index, written.by) for written in writes if written.index}
    for read in reads:
        shown = msgspec.convert(read.answer, ProtectedValue)
        if shown.value is not None:
            indexes.setdefault(shown.value, (shown.index, read))
    placed = sorted(
        ((index, by_value[value], by) for value, (index, by) in indexes.items() if value in by_value),
        key=lambda each: each[0],
    )
    rows = sorted(seen, key=lambda sighting: sighting.row.modify)
    indexes_of_rows = [sighting.row.modify for sighting in rows]
    newest: Written | None = None
    for index, written, shown_by in placed:
        place = bisect.bisect_right(indexes_of_rows, index)
        before = rows[place - 1] if place else None
        reason = _not_in_force(written, before, rows[place] if place < len(rows) else None)
        if reason and before is not None:
            yield Objection(FENCING, f"written at index {index}, but {reason}", key, (before.by, written.by, shown_by))
        if written.checked_index is None or written.hold is None:
            continue
        if newest is not None and newest.hold is not None and written.hold < newest.hold:
            reason = f"{_named(written.hold)} wrote at index {index}, after {_named(newest.hold)} had written"
            yield Objection(FENCING, reason, key, (newest.by, written.by, shown_by))
        else:
            newest = written


def _not_in_force(written: Written, before: Sighting | None, after: Sighting | None) -> str:
    """Why what was checked was not so at the write's index, between the rows that are known around it."""
    if before is None:
        return ""
    if written.checked_index is not None and before.row.modify > written.checked_index:
        return f"the lock's ModifyIndex {written.checked_index} was checked, and was {before.row.modify} by then"
    if after is not None and after.row.hold == before.row.hold and before.row.session != written.session:
        return f"{_named(before.row.hold)} was not of its session {written.session} then"
    return ""


# ---------------------------------------------------------------------------------------------------------------- words


def _named(hold: Hold) -> str:
    return f"hold ({hold[0]}, {hold[1]})"


def _s(ns: int) -> str:
    return f"{ns / 1e9:.3f} s"
