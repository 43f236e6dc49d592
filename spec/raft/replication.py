"""Log replication: append, acknowledge, commit, apply. `action(...) -> Outcome | None`; see `actions`.

What was compacted (at or below `base`) is committed, so it is never compared and never cut, and it cannot be sent.
Sources: Ongaro 2014, sections 3.5, 3.6.2, 5.1, 6.4, 10.2.1; raft.tla.
"""

from __future__ import annotations

from msgspec.structs import replace

from spec.raft.messages import AppendEntriesRequest, AppendEntriesResponse
from spec.raft.state import held_durably, issue, raised, remembering
from spec.raft.types import (
    Applied,
    Committed,
    Constants,
    Entry,
    Index,
    Outcome,
    Point,
    Role,
    Server,
    ServerId,
    Time,
    Value,
)


def client_request(c: Constants, i: ServerId, s: Server, value: Value) -> Outcome | None:
    """The leader appends an entry of its term. Ongaro 2014, section 3.5; raft.tla ClientRequest."""
    if s.role is not Role.LEADER:
        return None
    longer = s.log.append(Entry(term=s.current_term, value=value))
    return Outcome(replace(s, issued=issue(s, replace(s.memory, log=longer))))


def append_entries(c: Constants, i: ServerId, s: Server, to: ServerId, prev: Index, last: Index) -> Outcome | None:
    """Send the entries (prev, last], perhaps none, with the commit index and the newest confirmation round.

    Ongaro 2014, sections 3.5 and 6.4; raft.tla AppendEntries. The entries need not be on the leader's own disk yet
    (section 10.2.1). Of what is compacted only the last term is known. *Deviation:* any slice may be sent, so that
    batching and pipelining are behaviours of this spec.
    """
    if s.role is not Role.LEADER or to == i or s.durable.term != s.current_term:
        return None
    if not s.memory.base <= prev <= last <= s.log.length:
        return None
    request = AppendEntriesRequest(
        term=s.current_term,
        source=i,
        dest=to,
        prev_log_index=prev,
        prev_log_term=s.log.term_at(prev),
        entries=s.log.slice(prev, last),
        commit_index=min(s.commit_index, last),
        round=s.round,
    )
    return Outcome(s, sent=(request,))


def handle_append_entries_request(
    c: Constants, i: ServerId, s: Server, m: AppendEntriesRequest, now: Time
) -> Outcome | None:
    """Follow the term's leader; take its entries if the log holds the one before them; truncate only on a conflict.

    Ongaro 2014, section 3.5 (figure 3.1, receiver implementation); raft.tla HandleAppendEntriesRequest. Each cut and
    each new entry is a write of its own, since a torn write may end between any two. What was compacted is committed:
    entries that begin below the base need no check. Not enabled in a leader of the message's term: two leaders of one
    term would be a violation, which must not be hidden here.
    """
    if m.dest != i or m.term > s.current_term or (m.term == s.current_term and s.role is Role.LEADER):
        return None
    if m.term < s.current_term:
        return Outcome(s)
    follower = following(s, m.source, m.round, now)
    prev = m.prev_log_index
    if prev > s.log.length or (prev >= s.memory.base and s.log.term_at(prev) != m.prev_log_term):
        return Outcome(follower)
    match = prev + len(m.entries)
    learned = replace(
        follower,
        issued=issue(s, *points_taken(s, m), cause=m),
        commit_index=max(s.commit_index, min(m.commit_index, match)),
        leader_match=max(s.leader_match, match),
    )
    return Outcome(learned)


def following(s: Server, leader: ServerId, number: int, now: Time) -> Server:
    """`s` after it heard, at `now`, from the leader of its current term in round `number`; any campaign is over."""
    return replace(
        s,
        role=Role.FOLLOWER,
        leader_id=leader,
        votes=(),
        pre_votes=(),
        round=max(s.round, number),
        heard_at=now,
    )


def points_taken(s: Server, m: AppendEntriesRequest) -> list[Point]:
    """The disk points that lead from the server's log to one that holds the message's entries above its base.

    None if it holds them already: an old message must never shorten a log that has moved on.
    """
    log, points = s.log, []
    for index, entry in enumerate(m.entries, start=m.prev_log_index + 1):
        if index <= s.memory.base or (index <= log.length and log.term_at(index) == entry.term):
            continue
        if index <= log.length:
            log = log.truncate(index - 1)
            points.append(replace(s.memory, log=log))
        log = log.append(entry)
        points.append(replace(s.memory, log=log))
    return points


def append_entries_response(
    c: Constants, i: ServerId, s: Server, to: ServerId, success: bool, match: Index
) -> Outcome | None:
    """Acknowledge to the leader what the disk holds of its log, or refuse; both answer its newest round.

    Rules 1 and 3. Ongaro 2014, sections 3.5 and 6.4; raft.tla HandleAppendEntriesRequest, its Replies. A refusal's
    `match` is only a hint. An installed snapshot is acknowledged in the same way.
    """
    if to == i or s.durable.term != s.current_term:
        return None
    if success and (to != s.leader_id or match > s.leader_match or not held_durably(s, match)):
        return None
    response = AppendEntriesResponse(
        term=s.current_term, source=i, dest=to, success=success, match_index=match, round=s.round
    )
    return Outcome(s, sent=(response,))


def handle_append_entries_response(c: Constants, i: ServerId, s: Server, m: AppendEntriesResponse) -> Outcome | None:
    """The leader learns what a follower's disk holds, and which round it answered; both only grow.

    Ongaro 2014, sections 3.5 and 6.4; raft.tla HandleAppendEntriesResponse. A refusal confirms the round all the same.
    """
    if m.dest != i or m.term > s.current_term:
        return None
    if m.term < s.current_term or s.role is not Role.LEADER:
        return Outcome(s)
    match_index = raised(s.match_index, m.source, m.match_index) if m.success else s.match_index
    learned = replace(s, match_index=match_index, acked_round=raised(s.acked_round, m.source, m.round))
    return Outcome(remembering(c, i, learned))


def advance_commit_index(c: Constants, i: ServerId, s: Server, index: Index) -> Outcome | None:
    """Commit up to an entry of the leader's own term that a quorum holds on disk; older entries are committed with it.

    Ongaro 2014, section 3.6.2 (the restriction to the current term is figure 3.7); raft.tla AdvanceCommitIndex. The
    leader counts itself by its disk (rule 3), so it may commit an entry before its own write is done (section 10.2.1);
    and only if it votes in the latest configuration (section 4.2.2).
    """
    if s.role is not Role.LEADER or not s.commit_index < index <= s.log.length:
        return None
    holders = {peer for peer, match in s.match_index if match >= index}
    if held_durably(s, index):
        holders.add(i)
    if s.log.term_at(index) != s.current_term or not c.configuration(s.log).is_quorum(holders):
        return None
    fact = Committed(term=s.current_term, index=index, log=s.log.truncate(index))
    return Outcome(replace(s, commit_index=index), facts=(fact,))


def apply(c: Constants, i: ServerId, s: Server) -> Outcome | None:
    """Apply the next committed entry to the state machine, once the disk holds it (rule 4).

    Ongaro 2014, section 3.5. A state machine that is behind the disk's snapshot, or behind the base in memory, is
    replaced first (`restore_snapshot`).
    """
    index = s.last_applied + 1
    if index > s.commit_index or s.last_applied < max(s.durable.snapshot, s.memory.base) or not held_durably(s, index):
        return None
    fact = Applied(server=i, index=index, entry=s.log.entry(index))
    return Outcome(replace(s, last_applied=index), facts=(fact,))
