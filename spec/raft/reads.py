"""Linearizable reads: by a confirmation round, or by the lease. `action(...) -> Outcome | None`; see `actions`.

Sources: Ongaro 2014, sections 6.4 (read index) and 6.4.1 (leases).
"""

from __future__ import annotations

from msgspec.structs import replace

from spec.raft.state import has_answered, remembering
from spec.raft.types import (
    Constants,
    Outcome,
    Read,
    ReadAnswered,
    ReadConfirmed,
    ReadStarted,
    Role,
    Server,
    ServerId,
    Time,
)


def begin_round(c: Constants, i: ServerId, s: Server, now: Time) -> Outcome | None:
    """The leader begins a round of heartbeats, from whose begin its lease is counted (Ongaro 2014, section 6.4.1)."""
    if s.role is not Role.LEADER:
        return None
    return Outcome(with_next_round(c, i, s, now))


def with_next_round(c: Constants, i: ServerId, s: Server, now: Time) -> Server:
    """The leader `s` after it began its next round at `now`; the moment is kept if there are leases."""
    if not c.has_leases:
        return replace(s, round=s.round + 1)
    begun = replace(s, round=s.round + 1, round_starts=(*s.round_starts, (s.round + 1, now)))
    return remembering(c, i, begun)


def may_take_reads(s: Server, read: str) -> bool:
    """Whether `s` leads, has committed an entry of its own term, and does not know the read yet.

    Without the former its commit index may lag behind what was committed before it was elected (section 6.4).
    """
    if s.role is not Role.LEADER or s.log.term_at(s.commit_index) != s.current_term:
        return False
    return not any(waiting.id == read for waiting in s.reads + s.confirmed)


def read_request(c: Constants, i: ServerId, s: Server, read: str, now: Time) -> Outcome | None:
    """A linearizable read arrives at the leader: it takes the commit index and begins a round (section 6.4)."""
    if not may_take_reads(s, read):
        return None
    begun = with_next_round(c, i, s, now)
    waiting = Read(id=read, index=s.commit_index, round=begun.round)
    fact = ReadStarted(id=read, term=s.current_term, index=s.commit_index)
    return Outcome(replace(begun, reads=(*s.reads, waiting)), facts=(fact,))


def confirm_read(c: Constants, i: ServerId, s: Server, read: str) -> Outcome | None:
    """A quorum answered the read's round: no newer leader had been elected when the read arrived (section 6.4)."""
    found = next((waiting for waiting in s.reads if waiting.id == read), None)
    if s.role is not Role.LEADER or found is None or not has_answered(c, i, s, found.round):
        return None
    waiting = tuple(other for other in s.reads if other.id != read)
    fact = ReadConfirmed(id=read, term=s.current_term, index=found.index)
    return Outcome(replace(s, reads=waiting, confirmed=(*s.confirmed, found)), facts=(fact,))


def lease_read(c: Constants, i: ServerId, s: Server, read: str, now: Time) -> Outcome | None:
    """A linearizable read is confirmed as it arrives, by a lease that has not ended (Ongaro 2014, section 6.4.1).

    A quorum answered a round, so its servers heard from this leader when that round began or later; until
    `vote_from` of that moment they elect nobody, and the lease is over before. A leader that transfers its leadership
    has no lease: those whom it urges do not wait (section 3.10).
    """
    if not may_take_reads(s, read) or s.transferring or not s.round_starts:
        return None
    newest, start = s.round_starts[0]
    if now > c.lease_end(start) or not has_answered(c, i, s, newest):
        return None
    found = Read(id=read, index=s.commit_index, round=newest)
    facts = (ReadStarted(read, s.current_term, found.index), ReadConfirmed(read, s.current_term, found.index))
    return Outcome(replace(s, confirmed=(*s.confirmed, found)), facts=facts)


def answer_read(c: Constants, i: ServerId, s: Server, read: str) -> Outcome | None:
    """Answer a confirmed read from a state machine that has applied its index, in any role (section 6.4)."""
    found = next((waiting for waiting in s.confirmed if waiting.id == read), None)
    if found is None or s.last_applied < found.index:
        return None
    rest = tuple(other for other in s.confirmed if other.id != read)
    fact = ReadAnswered(id=read, index=found.index, applied=s.last_applied)
    return Outcome(replace(s, confirmed=rest), facts=(fact,))
