"""What Raft promises, as checks on one server, one step, one fact or one pair of servers; and what must happen
sometimes.

A property is a named predicate that is False when it is broken. It must not restate an action's guard: it is a theorem
of the dissertation, or one of the durability rules seen from the disk.

- `INVARIANTS` hold of every reachable state of one server;
- `STEP_PROPERTIES` of every local step, `SENT_PROPERTIES` of every message and the state that sent it;
- `FACT_PROPERTIES` of a new fact and the history before it: properties over time are pairwise over facts;
- `PAIR_PROPERTIES` of any two servers, `HISTORY_PROPERTIES` of a server and the history;
- `SOMETIMES` are witnesses: a model in which one never happens may keep its promises because it does nothing.

Sources: Ongaro 2014, figure 3.2 and sections 3.6.3 and 6.4; raft.tla.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeGuard, assert_never

from spec.raft.log import Log
from spec.raft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    LeaseEnded,
    Message,
    PreVoteRequest,
    PreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
    TimeoutNow,
)
from spec.raft.network import History, Transition
from spec.raft.types import (
    Applied,
    Committed,
    Constants,
    Elected,
    Fact,
    ReadAnswered,
    ReadConfirmed,
    Role,
    Server,
    ServerId,
)

# -------------------------------------------------------------------------------------------------------- one server


def type_invariant(c: Constants, i: ServerId, s: Server) -> bool:
    """Every field is within its range, and empty in the roles that do not use it."""
    peers, leads = c.peers(i), s.role is Role.LEADER
    terms = [s.durable.term, *(write.point.term for write in s.issued)]
    return (
        0 <= s.last_applied <= s.commit_index <= s.log.length
        and 0 <= s.leader_match <= s.log.length
        and terms == sorted(terms)
        and set(s.votes) <= set(peers)
        and list(s.votes) == sorted(set(s.votes))
        and (s.role is Role.CANDIDATE or not s.votes)
        and (s.role is Role.FOLLOWER or s.leader_match == 0)
        and tuple(peer for peer, _ in s.match_index) == (peers if leads else ())
        and tuple(peer for peer, _ in s.acked_round) == (peers if leads else ())
        and (leads or not s.reads)
        and (s.leader_id == i) == leads
    )


def acknowledged_was_sent(c: Constants, i: ServerId, s: Server) -> bool:
    """Nobody acknowledges more than the leader's log, nor a round that the leader has not begun."""
    matches = all(0 <= match <= s.log.length for _, match in s.match_index)
    return matches and all(0 <= answered <= s.round for _, answered in s.acked_round)


def votes_for_itself(c: Constants, i: ServerId, s: Server) -> bool:
    """A candidate or leader voted for itself, and a leader's disk says so (rule 2)."""
    if s.role is Role.FOLLOWER:
        return True
    on_disk = s.durable.term == s.current_term and s.durable.voted_for == i
    return s.voted_for == i and (s.role is Role.CANDIDATE or on_disk)


def applied_is_on_disk(c: Constants, i: ServerId, s: Server) -> bool:
    """What the state machine has applied, the disk holds (rule 4)."""
    return s.durable.log.agrees(s.log, s.last_applied)


INVARIANTS: Final[Mapping[str, Callable[[Constants, ServerId, Server], bool]]] = {
    "Type Invariant": type_invariant,
    "Acknowledged Was Sent": acknowledged_was_sent,
    "Durable Self-Vote": votes_for_itself,
    "Durable Apply": applied_is_on_disk,
}

# --------------------------------------------------------------------------------------------------- steps and sends


def leader_append_only(step: Transition) -> bool:
    """A leader never overwrites or deletes entries of its log; it only appends (Ongaro 2014, figure 3.2)."""
    before, after = step.before, step.after
    leads_on = before.role is after.role is Role.LEADER and before.current_term == after.current_term
    return not leads_on or before.log.is_prefix_of(after.log)


def disk_keeps_its_word(step: Transition) -> bool:
    """The disk never goes back to an older term, changes a vote, or loses what it may have acknowledged in its term.

    With `said_by_disk` when a message is sent this keeps its promise, by induction over the steps. After a restart,
    which forgets what was acknowledged, only terms and votes are watched here.
    """
    before, after = step.before.durable, step.after.durable
    if after.term != before.term:
        return after.term > before.term
    may_be_acknowledged = step.before.log.truncate(step.before.leader_match).common_prefix(before.log)
    return before.voted_for in (None, after.voted_for) and may_be_acknowledged.is_prefix_of(after.log)


def indexes_grow(step: Transition) -> bool:
    """Without a crash, the commit index and the applied index never fall (Ongaro 2014, figure 3.1)."""
    before, after = step.before, step.after
    grow = before.commit_index <= after.commit_index and before.last_applied <= after.last_applied
    return grow or step.action == "crash_restart"


def stale_messages_are_ignored(step: Transition) -> bool:
    """A message of an older term changes nothing (Ongaro 2014, section 3.3).

    `network` forgets such messages when it may.
    """
    stale = any(is_message(m) and m.term < step.before.current_term for m in step.arguments)
    return not stale or step.changes_nothing


def is_message(value: object) -> TypeGuard[Message]:
    """Whether an argument of a step is a message."""
    return isinstance(value, Message)


STEP_PROPERTIES: Final[Mapping[str, Callable[[Transition], bool]]] = {
    "Leader Append-Only": leader_append_only,
    "Durable Promises": disk_keeps_its_word,
    "Monotone Indexes": indexes_grow,
    "Stale Messages": stale_messages_are_ignored,
}


def said_by_disk(s: Server, m: Message) -> bool:
    """What a message promises, the sender's disk holds (ARCHITECTURE.md, section 3, rules 1-3)."""
    if s.durable.term != m.term:
        return False
    match m:
        case RequestVoteRequest():
            return s.durable.voted_for == m.source
        case RequestVoteResponse(vote_granted=True):
            return s.durable.voted_for == m.dest
        case AppendEntriesResponse(success=True):
            return m.match_index <= s.durable.log.common_prefix(s.log).length
        case InstallSnapshotRequest():
            return m.last_index <= s.durable.snapshot
        case RequestVoteResponse() | AppendEntriesRequest() | AppendEntriesResponse() | TimeoutNow():
            return True
        case PreVoteRequest() | PreVoteResponse() | LeaseEnded():
            return True
        case _:
            assert_never(m)


SENT_PROPERTIES: Final[Mapping[str, Callable[[Server, Message], bool]]] = {"Durable Messages": said_by_disk}

# ----------------------------------------------------------------------------------------------------- facts over time


def election_safety(c: Constants, history: History, fact: Fact) -> bool:
    """At most one leader is elected in a term (Ongaro 2014, figure 3.2)."""
    if not isinstance(fact, Elected):
        return True
    return all(other.term != fact.term or other.server == fact.server for other in history.elected)


def leader_completeness(c: Constants, history: History, fact: Fact) -> bool:
    """What is committed in a term is in the log of every leader of a later term (Ongaro 2014, figure 3.2).

    Pairwise over elections and commitments, in whatever order they happened: an old leader may commit after a new one
    is elected.
    """
    match fact:
        case Elected():
            return all(old.log.is_prefix_of(fact.log) for old in history.committed if old.term < fact.term)
        case Committed():
            return all(fact.log.is_prefix_of(new.log) for new in history.elected if new.term > fact.term)
        case _:
            return True


def state_machine_safety(c: Constants, history: History, fact: Fact) -> bool:
    """No two servers ever apply different entries at one index (Ongaro 2014, figure 3.2).

    Stated through commitments: any two agree, and what is applied was committed. Hence any two applied entries agree.
    """
    match fact:
        case Committed():
            logs = [old.log for old in history.committed]
            return all(log.is_prefix_of(fact.log) or fact.log.is_prefix_of(log) for log in logs)
        case Applied():
            holding = [old.log for old in history.committed if old.index >= fact.index]
            return bool(holding) and all(log.entry(fact.index) == fact.entry for log in holding)
        case _:
            return True


def read_linearizability(c: Constants, history: History, fact: Fact) -> bool:
    """A read sees everything that was committed anywhere before it arrived (Ongaro 2014, section 6.4)."""
    floors = dict(history.reads)
    match fact:
        case ReadConfirmed():
            return fact.index >= floors.get(fact.id, 0)
        case ReadAnswered():
            return min(fact.index, fact.applied) >= floors.get(fact.id, 0)
        case _:
            return True


FACT_PROPERTIES: Final[Mapping[str, Callable[[Constants, History, Fact], bool]]] = {
    "Election Safety": election_safety,
    "Leader Completeness": leader_completeness,
    "State Machine Safety": state_machine_safety,
    "Read Linearizability": read_linearizability,
}

# ------------------------------------------------------------------------------------------- servers and the history


def logs_match(a: Log, b: Log) -> bool:
    """Entries with the same index and term imply equal logs up to them (Ongaro 2014, figure 3.2, Log Matching)."""
    agreed = a.common_prefix(b).length
    return all(a.term_at(index) != b.term_at(index) for index in range(agreed + 1, min(a.length, b.length) + 1))


def log_matching(s: Server, t: Server) -> bool:
    """Log Matching, of memories and disks."""
    return all(logs_match(a, b) for a in (s.log, s.durable.log) for b in (t.log, t.durable.log))


PAIR_PROPERTIES: Final[Mapping[str, Callable[[Server, Server], bool]]] = {"Log Matching": log_matching}


def commit_index_is_covered(history: History, s: Server) -> bool:
    """What a server believes to be committed, a leader has committed."""
    believed = s.log.truncate(s.commit_index)
    return s.commit_index == 0 or any(believed.is_prefix_of(fact.log) for fact in history.committed)


HISTORY_PROPERTIES: Final[Mapping[str, Callable[[History, Server], bool]]] = {
    "Committed Indexes": commit_index_is_covered
}

# --------------------------------------------------------------------------------------------------------- sometimes


def has_fact(step: Transition, kind: type[Fact]) -> bool:
    """Whether the step makes a fact of this kind true."""
    return any(isinstance(fact, kind) for fact in step.outcome.facts)


def truncates(step: Transition) -> bool:
    """A follower cuts entries that conflict with its leader's."""
    return step.action == "handle_append_entries_request" and not step.before.log.is_prefix_of(step.after.log)


def refuses_outdated_candidate(step: Transition) -> bool:
    """A vote that was free is withheld because the candidate's log is outdated."""
    voted = step.after.voted_for is not None
    current = any(is_message(m) and m.term == step.before.current_term for m in step.arguments)
    return step.action == "handle_request_vote_request" and current and not voted


def commits_before_own_disk(step: Transition) -> bool:
    """A leader commits an entry that its own disk does not hold yet (Ongaro 2014, section 10.2.1)."""
    return has_fact(step, Committed) and step.before.durable.log.length < step.after.commit_index


def commits_older_term(step: Transition) -> bool:
    """An entry of an older term is committed by one of the leader's own (Ongaro 2014, section 3.6.2)."""
    return (
        has_fact(step, Committed) and step.before.log.term_at(step.before.commit_index + 1) < step.before.current_term
    )


SOMETIMES: Final[Mapping[str, Callable[[Transition], bool]]] = {
    "a leader is elected": lambda step: has_fact(step, Elected),
    "a leader steps down": lambda step: step.before.role is Role.LEADER and step.action == "update_term",
    "a candidate follows the winner": lambda step: (
        step.before.role is Role.CANDIDATE
        and step.action == "handle_append_entries_request"
        and not step.changes_nothing
    ),
    "a vote is refused to an outdated log": refuses_outdated_candidate,
    "an entry is committed": lambda step: has_fact(step, Committed),
    "an entry of an older term is committed": commits_older_term,
    "a leader commits before its own disk": commits_before_own_disk,
    "a conflict is truncated": truncates,
    "a follower applies an entry": lambda step: has_fact(step, Applied) and step.before.role is Role.FOLLOWER,
    "a read is answered": lambda step: has_fact(step, ReadAnswered),
    "a former leader answers a read": lambda step: has_fact(step, ReadAnswered) and step.before.role is not Role.LEADER,
    "an unsynced write is lost": lambda step: (
        step.action == "crash_restart" and step.after.durable != step.before.memory
    ),
    "an unconfirmed write survives": lambda step: (
        step.action == "crash_restart" and step.after.durable != step.before.durable
    ),
    "a write is torn between two points": lambda step: (
        step.action == "crash_restart" and step.after.durable not in (step.before.durable, step.before.memory)
    ),
}
"""Witnesses in a local step, by name."""

SOMETIMES_PAIR: Final[Mapping[str, Callable[[Server, Server], bool]]] = {
    "two leaders at once, in different terms": lambda s, t: (
        s.role is t.role is Role.LEADER and s.current_term != t.current_term
    ),
}
"""Witnesses in two servers of one world, by name."""
