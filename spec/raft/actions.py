"""Raft's actions, one function each: `action(constants, i, server, ...) -> Outcome | None`; None means "not enabled".

An action reads one server and at most one message. It must not look at another server, at what else the network holds,
at time or at chance: whatever the protocol leaves open is a parameter, which exploration enumerates and conformance
records.

Sources: Ongaro 2014, chapter 3 and section 6.4; raft.tla, whose names are given where they differ. *Deviations:*
crashes may lose writes that were issued and are not yet durable, and what leaves a server is guarded by what its disk
holds (ARCHITECTURE.md, section 3, rules 1-4); handlers do not answer: a response is a send of its own, which may be
repeated; `next_index` is missing because a leader may send any slice of its log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from msgspec.structs import replace

from spec.raft.log import EMPTY
from spec.raft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    Message,
    RequestVoteRequest,
    RequestVoteResponse,
)
from spec.raft.types import (
    Applied,
    Committed,
    Constants,
    Elected,
    Entry,
    Index,
    Outcome,
    Point,
    Read,
    ReadAnswered,
    ReadConfirmed,
    ReadStarted,
    Role,
    Server,
    ServerId,
    Value,
    Write,
)

# ------------------------------------------------------------------------------------------------------------ helpers


def initial_server() -> Server:
    """A server before its first step: term 0, no vote, an empty log, all of it on disk (raft.tla Init)."""
    return restarted(Point(term=0, voted_for=None, log=EMPTY))


def restarted(point: Point) -> Server:
    """The server that finds `point` on its disk when it starts: a follower that remembers nothing else."""
    return Server(
        role=Role.FOLLOWER,
        leader_id=None,
        commit_index=0,
        last_applied=0,
        leader_match=0,
        round=0,
        votes=(),
        match_index=(),
        acked_round=(),
        reads=(),
        confirmed=(),
        durable=point,
        issued=(),
    )


def issue(server: Server, *points: Point, cause: Message | None = None) -> tuple[Write, ...]:
    """The server's issued writes with `points` added, in order."""
    return server.issued + tuple(Write(point, cause) for point in points)


def log_up_to_date(server: Server, m: RequestVoteRequest) -> bool:
    """Whether the candidate's log is at least as up-to-date as the server's (Ongaro 2014, section 3.6.1)."""
    return (m.last_log_term, m.last_log_index) >= (server.log.last_term, server.log.length)


def own_vote_durable(i: ServerId, server: Server) -> bool:
    """Whether the disk knows that `i` votes for itself in its current term (rule 2)."""
    return server.durable.term == server.current_term and server.durable.voted_for == i


def held_durably(server: Server, index: Index) -> bool:
    """Whether the disk holds the server's log up to `index`, as memory has it (rules 3 and 4)."""
    return server.durable.log.agrees(server.log, index)


def raised(pairs: tuple[tuple[ServerId, int], ...], key: ServerId, value: int) -> tuple[tuple[ServerId, int], ...]:
    """`pairs` with the number at `key` raised to `value` if that is higher."""
    return tuple((k, max(old, value) if k == key else old) for k, old in pairs)


# ---------------------------------------------------------------------------------------------------------- elections


def timeout(c: Constants, i: ServerId, s: Server) -> Outcome | None:
    """Become candidate of the next term and vote for oneself; the vote counts when it is durable.

    Ongaro 2014, section 3.4; raft.tla Timeout. Timers are choices that are always enabled: sound for safety.
    """
    if s.role is Role.LEADER:
        return None
    vote = Point(term=s.current_term + 1, voted_for=i, log=s.log)
    return Outcome(
        replace(s, role=Role.CANDIDATE, leader_id=None, leader_match=0, round=0, votes=(), issued=issue(s, vote))
    )


def request_vote(c: Constants, i: ServerId, s: Server, to: ServerId) -> Outcome | None:
    """Ask `to` for its vote, once one's own is on disk. Ongaro 2014, section 3.4; raft.tla RequestVote."""
    if s.role is not Role.CANDIDATE or to == i or not own_vote_durable(i, s):
        return None
    request = RequestVoteRequest(
        term=s.current_term, source=i, dest=to, last_log_index=s.log.length, last_log_term=s.log.last_term
    )
    return Outcome(s, sent=(request,))


def become_leader(c: Constants, i: ServerId, s: Server) -> Outcome | None:
    """A candidate with the votes of a quorum leads its term. Ongaro 2014, section 3.4; raft.tla BecomeLeader.

    Nothing is known of the peers' logs; rounds are numbered anew in each term.
    """
    voters = {*s.votes, i} if own_vote_durable(i, s) else {*s.votes}
    if s.role is not Role.CANDIDATE or not c.is_quorum(voters):
        return None
    nothing = tuple((peer, 0) for peer in c.peers(i))
    leader = replace(s, role=Role.LEADER, leader_id=i, round=0, votes=(), match_index=nothing, acked_round=nothing)
    return Outcome(leader, facts=(Elected(term=s.current_term, server=i, log=s.log),))


def update_term(c: Constants, i: ServerId, s: Server, m: Message) -> Outcome | None:
    """A message of a higher term makes any server a follower of that term.

    Ongaro 2014, section 3.3; raft.tla UpdateTerm. The message stays in the network and is handled by a step of its
    own. Reads that wait for confirmation are lost with the leadership; confirmed ones are kept, since a confirmed read
    index stays valid.
    """
    if m.dest != i or m.term <= s.current_term:
        return None
    newer = Point(term=m.term, voted_for=None, log=s.log)
    follower = replace(
        s,
        role=Role.FOLLOWER,
        leader_id=None,
        leader_match=0,
        round=0,
        votes=(),
        match_index=(),
        acked_round=(),
        reads=(),
        issued=issue(s, newer, cause=m),
    )
    return Outcome(follower)


def handle_request_vote_request(c: Constants, i: ServerId, s: Server, m: RequestVoteRequest) -> Outcome | None:
    """Grant the vote, in memory: at most one a term, and only to a log at least as up-to-date as one's own.

    Ongaro 2014, sections 3.4 and 3.6.1; raft.tla HandleRequestVoteRequest. A vote is promised when `vote_response`
    sends it.
    """
    if m.dest != i or m.term > s.current_term:
        return None
    grant = m.term == s.current_term and s.voted_for is None and log_up_to_date(s, m)
    if not grant:
        return Outcome(s)
    vote = Point(term=s.current_term, voted_for=m.source, log=s.log)
    return Outcome(replace(s, issued=issue(s, vote, cause=m)))


def vote_response(c: Constants, i: ServerId, s: Server, to: ServerId, granted: bool) -> Outcome | None:
    """Answer a vote request; a granted vote must be on disk (rule 2). raft.tla HandleRequestVoteRequest, its Reply.

    A refusal promises nothing, so it may be sent at any time in a term that the disk knows (rule 1).
    """
    if to == i or s.durable.term != s.current_term or (granted and s.durable.voted_for != to):
        return None
    response = RequestVoteResponse(term=s.current_term, source=i, dest=to, vote_granted=granted)
    return Outcome(s, sent=(response,))


def handle_request_vote_response(c: Constants, i: ServerId, s: Server, m: RequestVoteResponse) -> Outcome | None:
    """Count a granted vote of the current term. Ongaro 2014, section 3.4; raft.tla HandleRequestVoteResponse.

    *Deviation:* raft.tla counts votes in any role, and looks at them as a candidate only.
    """
    if m.dest != i or m.term > s.current_term:
        return None
    if m.term < s.current_term or s.role is not Role.CANDIDATE or not m.vote_granted:
        return Outcome(s)
    return Outcome(replace(s, votes=tuple(sorted({*s.votes, m.source}))))


# -------------------------------------------------------------------------------------------------------- replication


def client_request(c: Constants, i: ServerId, s: Server, value: Value) -> Outcome | None:
    """The leader appends an entry of its term. Ongaro 2014, section 3.5; raft.tla ClientRequest."""
    if s.role is not Role.LEADER:
        return None
    longer = s.log.append(Entry(term=s.current_term, value=value))
    return Outcome(replace(s, issued=issue(s, Point(s.current_term, s.voted_for, longer))))


def append_entries(c: Constants, i: ServerId, s: Server, to: ServerId, prev: Index, last: Index) -> Outcome | None:
    """Send the entries (prev, last], perhaps none, with the commit index and the newest confirmation round.

    Ongaro 2014, sections 3.5 and 6.4; raft.tla AppendEntries. The entries need not be on the leader's own disk yet
    (section 10.2.1). *Deviation:* any slice may be sent, so that batching and pipelining are behaviours of this spec.
    """
    if s.role is not Role.LEADER or to == i or s.durable.term != s.current_term:
        return None
    if not 0 <= prev <= last <= s.log.length:
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


def handle_append_entries_request(c: Constants, i: ServerId, s: Server, m: AppendEntriesRequest) -> Outcome | None:
    """Follow the term's leader; take its entries if the log holds the one before them; truncate only on a conflict.

    Ongaro 2014, section 3.5 (figure 3.1, receiver implementation); raft.tla HandleAppendEntriesRequest. Each cut and
    each new entry is a write of its own, since a torn write may end between any two. Not enabled in a leader of the
    message's term: two leaders of one term would be a violation, which must not be hidden here.
    """
    if m.dest != i or m.term > s.current_term or (m.term == s.current_term and s.role is Role.LEADER):
        return None
    if m.term < s.current_term:
        return Outcome(s)
    follower = replace(s, role=Role.FOLLOWER, leader_id=m.source, votes=(), round=max(s.round, m.round))
    prev = m.prev_log_index
    if prev > s.log.length or s.log.term_at(prev) != m.prev_log_term:
        return Outcome(follower)
    match = prev + len(m.entries)
    learned = replace(
        follower,
        issued=issue(s, *points_taken(s, m), cause=m),
        commit_index=max(s.commit_index, min(m.commit_index, match)),
        leader_match=max(s.leader_match, match),
    )
    return Outcome(learned)


def points_taken(s: Server, m: AppendEntriesRequest) -> list[Point]:
    """The disk points that lead from the server's log to one that holds the message's entries.

    None if it holds them already: an old message must never shorten a log that has moved on.
    """
    log, points = s.log, []
    for index, entry in enumerate(m.entries, start=m.prev_log_index + 1):
        if index <= log.length and log.term_at(index) == entry.term:
            continue
        if index <= log.length:
            log = log.truncate(index - 1)
            points.append(Point(s.current_term, s.voted_for, log))
        log = log.append(entry)
        points.append(Point(s.current_term, s.voted_for, log))
    return points


def append_entries_response(
    c: Constants, i: ServerId, s: Server, to: ServerId, success: bool, match: Index
) -> Outcome | None:
    """Acknowledge to the leader what the disk holds of its log, or refuse; both answer its newest round.

    Rules 1 and 3. Ongaro 2014, sections 3.5 and 6.4; raft.tla HandleAppendEntriesRequest, its Replies. A refusal's
    `match` is only a hint.
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
    return Outcome(replace(s, match_index=match_index, acked_round=raised(s.acked_round, m.source, m.round)))


def advance_commit_index(c: Constants, i: ServerId, s: Server, index: Index) -> Outcome | None:
    """Commit up to an entry of the leader's own term that a quorum holds on disk; older entries are committed with it.

    Ongaro 2014, section 3.6.2 (the restriction to the current term is figure 3.7); raft.tla AdvanceCommitIndex. The
    leader counts itself by its disk (rule 3), so it may commit an entry before its own write is done (section 10.2.1).
    """
    if s.role is not Role.LEADER or not s.commit_index < index <= s.log.length:
        return None
    holders = {peer for peer, match in s.match_index if match >= index}
    if held_durably(s, index):
        holders.add(i)
    if s.log.term_at(index) != s.current_term or not c.is_quorum(holders):
        return None
    fact = Committed(term=s.current_term, index=index, log=s.log.truncate(index))
    return Outcome(replace(s, commit_index=index), facts=(fact,))


def apply(c: Constants, i: ServerId, s: Server) -> Outcome | None:
    """Apply the next committed entry to the state machine, once the disk holds it (rule 4).

    Ongaro 2014, section 3.5.
    """
    index = s.last_applied + 1
    if index > s.commit_index or not held_durably(s, index):
        return None
    fact = Applied(server=i, index=index, entry=s.log.entry(index))
    return Outcome(replace(s, last_applied=index), facts=(fact,))


# -------------------------------------------------------------------------------------------------------------- reads


def read_request(c: Constants, i: ServerId, s: Server, read: str) -> Outcome | None:
    """A linearizable read arrives at the leader: it takes the commit index and the next round.

    Ongaro 2014, section 6.4. The leader must have committed an entry of its own term, or its commit index may lag
    behind what was committed before it was elected.
    """
    if s.role is not Role.LEADER or s.log.term_at(s.commit_index) != s.current_term:
        return None
    if any(waiting.id == read for waiting in s.reads + s.confirmed):
        return None
    waiting = Read(id=read, index=s.commit_index, round=s.round + 1)
    fact = ReadStarted(id=read, term=s.current_term, index=s.commit_index)
    return Outcome(replace(s, round=s.round + 1, reads=(*s.reads, waiting)), facts=(fact,))


def confirm_read(c: Constants, i: ServerId, s: Server, read: str) -> Outcome | None:
    """A quorum answered the read's round: no newer leader had been elected when the read arrived (section 6.4)."""
    found = next((waiting for waiting in s.reads if waiting.id == read), None)
    if s.role is not Role.LEADER or found is None:
        return None
    if not c.is_quorum({i, *(peer for peer, answered in s.acked_round if answered >= found.round)}):
        return None
    waiting = tuple(other for other in s.reads if other.id != read)
    fact = ReadConfirmed(id=read, term=s.current_term, index=found.index)
    return Outcome(replace(s, reads=waiting, confirmed=(*s.confirmed, found)), facts=(fact,))


def answer_read(c: Constants, i: ServerId, s: Server, read: str) -> Outcome | None:
    """Answer a confirmed read from a state machine that has applied its index, in any role (section 6.4)."""
    found = next((waiting for waiting in s.confirmed if waiting.id == read), None)
    if found is None or s.last_applied < found.index:
        return None
    rest = tuple(other for other in s.confirmed if other.id != read)
    fact = ReadAnswered(id=read, index=found.index, applied=s.last_applied)
    return Outcome(replace(s, confirmed=rest), facts=(fact,))


# --------------------------------------------------------------------------------------------------------------- disk


def persist(c: Constants, i: ServerId, s: Server, k: int) -> Outcome | None:
    """The disk confirms the first `k` issued writes (Ongaro 2014, figure 3.1: "updated on stable storage")."""
    if not 1 <= k <= len(s.issued):
        return None
    return Outcome(replace(s, durable=s.issued[k - 1].point, issued=s.issued[k:]))


def crash_restart(c: Constants, i: ServerId, s: Server, k: int) -> Outcome | None:
    """Crash and start again from the disk, which had written `k` of the issued points; raft.tla Restart.

    The disk may have written more than it confirmed, but only a prefix of what was asked for, and never less than it
    confirmed.
    """
    if not 0 <= k <= len(s.issued):
        return None
    return Outcome(restarted(s.issued[k - 1].point if k else s.durable))


Action = Callable[..., Outcome | None]
"""`action(constants, i, server, *arguments)`; the arguments are those of ARCHITECTURE.md, section 3."""

ACTIONS: Final[Mapping[str, Action]] = {
    action.__name__: action
    for action in (
        timeout,
        request_vote,
        become_leader,
        client_request,
        append_entries,
        advance_commit_index,
        apply,
        update_term,
        handle_request_vote_request,
        vote_response,
        handle_request_vote_response,
        handle_append_entries_request,
        append_entries_response,
        handle_append_entries_response,
        read_request,
        confirm_read,
        answer_read,
        persist,
        crash_restart,
    )
}
"""Every action by its name, in the order of ARCHITECTURE.md, section 3.

A mutant is this table with an entry replaced.
"""
