"""What Raft promises, as checks on one server, one step, one fact or one pair of servers.

A property is a named predicate that is False when it is broken. It must not restate an action's guard: it is a theorem
of the dissertation, or one of the durability rules seen from the disk.

- `INVARIANTS` hold of every reachable state of one server;
- `STEP_PROPERTIES` of every local step, `SENT_PROPERTIES` of every message and the state that sent it;
- `FACT_PROPERTIES` of a new fact and the history before it: properties over time are pairwise over facts;
- `PAIR_PROPERTIES` of any two servers, `HISTORY_PROPERTIES` of a server and the history.

What must happen sometimes is in `witnesses`.

Sources: Ongaro 2014, figure 3.2 and sections 3.6.3, 4.1, 5.1 and 6.4; raft.tla.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
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
    Restored,
    Role,
    Server,
    ServerId,
)

# -------------------------------------------------------------------------------------------------------- one server


def type_invariant(c: Constants, i: ServerId, s: Server) -> bool:
    """Every field is within its range, and empty in the roles that do not use it."""
    points = [s.durable, *(write.point for write in s.issued)]
    terms = [point.term for point in points]
    return (
        0 <= s.last_applied <= s.commit_index <= s.log.length
        and all(0 <= point.base <= point.snapshot <= point.log.length for point in points)
        and 0 <= s.leader_match <= s.log.length
        and terms == sorted(terms)
        and s.urged_by <= s.current_term
        and role_invariant(c, i, s)
    )


def role_invariant(c: Constants, i: ServerId, s: Server) -> bool:
    """The part of the type invariant that speaks of roles."""
    leads = s.role is Role.LEADER
    counted = tuple(member for member in c.configuration(s.log).members if member != i) if leads else ()
    return (
        is_set_of_peers(c, i, s.votes)
        and is_set_of_peers(c, i, s.pre_votes)
        and (s.role is Role.CANDIDATE or not s.votes)
        and (s.role is Role.FOLLOWER or s.leader_match == 0)
        and tuple(peer for peer, _ in s.match_index) == counted
        and tuple(peer for peer, _ in s.acked_round) == counted
        and (leads or not (s.reads or s.round_starts or s.transferring))
        and not (leads and (s.pre_votes or s.lease_ended))
        and list(s.round_starts) == sorted(s.round_starts)
        and all(number <= s.round for number, _ in s.round_starts)
        and (s.leader_id == i) == leads
    )


def is_set_of_peers(c: Constants, i: ServerId, servers: tuple[ServerId, ...]) -> bool:
    """Whether `servers` are sorted, without repetition, and other than `i`."""
    return list(servers) == sorted(set(servers)) and set(servers) <= set(c.peers(i))


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
    """The commit index and the applied index never fall (Ongaro 2014, figure 3.1), but for a crash.

    Then both fall to what the snapshot on disk covers.
    """
    before, after = step.before, step.after
    if step.action == "crash_restart":
        return after.commit_index == after.last_applied == after.durable.snapshot
    return before.commit_index <= after.commit_index and before.last_applied <= after.last_applied


def snapshots_grow(step: Transition) -> bool:
    """What the snapshot covers and what the log forgot never shrink on disk, nor from write to write (Ongaro 2014,
    section 5.1); a crash loses writes, but nothing that was durable.
    """
    points = [step.before.durable, step.after.durable, *(write.point for write in step.after.issued)]
    return all(p.snapshot <= q.snapshot and p.base <= q.base for p, q in pairwise(points))


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
    "Monotone Snapshots": snapshots_grow,
    "Stale Messages": stale_messages_are_ignored,
}


def said_by_disk(s: Server, m: Message) -> bool:
    """What a message promises, the sender's disk holds (ARCHITECTURE.md, section 3, rules 1-3).

    A pre-vote promises nothing, but must not speak of a log that may be lost; that a lease has ended is said by who
    held it.
    """
    disk = s.durable
    match m:
        case PreVoteRequest():
            shown = (m.last_log_index, m.last_log_term)
            return m.term == disk.term + 1 and shown == (disk.log.length, disk.log.last_term)
        case PreVoteResponse():
            return m.term > disk.term if m.granted else m.term == disk.term
        case RequestVoteRequest():
            return disk.term == m.term and disk.voted_for == m.source
        case RequestVoteResponse():
            return disk.term == m.term and (not m.vote_granted or disk.voted_for == m.dest)
        case AppendEntriesRequest() | TimeoutNow():
            return disk.term == m.term
        case AppendEntriesResponse():
            return disk.term == m.term and (not m.success or m.match_index <= disk.log.common_prefix(s.log).length)
        case InstallSnapshotRequest():
            return disk.term == m.term and m.last_index <= disk.snapshot and m.log.is_prefix_of(disk.log)
        case LeaseEnded():
            return s.current_term == m.term and s.role is Role.LEADER
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

    Stated through commitments: any two agree, and what is applied was committed, entry by entry or as a snapshot.
    Hence any two applied entries agree.
    """
    match fact:
        case Committed():
            logs = [old.log for old in history.committed]
            return all(log.is_prefix_of(fact.log) or fact.log.is_prefix_of(log) for log in logs)
        case Applied():
            holding = [old.log for old in history.committed if old.index >= fact.index]
            return bool(holding) and all(log.entry(fact.index) == fact.entry for log in holding)
        case Restored():
            return any(fact.log.is_prefix_of(old.log) for old in history.committed)
        case _:
            return True


def read_linearizability(c: Constants, history: History, fact: Fact) -> bool:
    """A read sees everything that was committed anywhere before it arrived (Ongaro 2014, section 6.4).

    A read by lease is confirmed as it arrives, before the history knows it.
    """
    floors = dict(history.reads)
    match fact:
        case ReadConfirmed():
            return fact.index >= floors.get(fact.id, history.highest_committed)
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


def is_committed(history: History, log: Log) -> bool:
    """Whether a leader has committed all of `log`."""
    return log.length == 0 or any(log.is_prefix_of(fact.log) for fact in history.committed)


def commit_index_is_covered(history: History, s: Server) -> bool:
    """What a server believes to be committed, a leader has committed."""
    return is_committed(history, s.log.truncate(s.commit_index))


def snapshot_is_committed(history: History, s: Server) -> bool:
    """A snapshot covers only what a leader has committed (Ongaro 2014, section 5.1)."""
    return s.durable.snapshot == 0 or is_committed(history, s.durable.log.truncate(s.durable.snapshot))


def one_configuration_is_uncommitted(history: History, s: Server) -> bool:
    """Of the configurations in a log, at most the latest is not committed (Ongaro 2014, section 4.1)."""
    before = [log.truncate(max(0, log.configuration_index - 1)) for log in (s.log, s.durable.log)]
    return all(is_committed(history, log.truncate(log.configuration_index)) for log in before)


HISTORY_PROPERTIES: Final[Mapping[str, Callable[[History, Server], bool]]] = {
    "Committed Indexes": commit_index_is_covered,
    "Committed Snapshots": snapshot_is_committed,
    "One Configuration at a Time": one_configuration_is_uncommitted,
}
