"""What must happen sometimes: a model in which one of these never happens may keep its promises because it does
nothing.

A witness is a named predicate on a local step, or on two servers of one world. It promises nothing: what must always
hold is in `properties`. Sources: as there; Ongaro 2014, sections 3.10, 4.2.1, 4.2.2, 5.3, 6.4.1 and 9.6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from spec.raft.messages import InstallSnapshotRequest, PreVoteResponse, RequestVoteRequest
from spec.raft.network import Transition
from spec.raft.properties import is_message
from spec.raft.types import (
    Applied,
    Committed,
    Elected,
    Fact,
    ReadAnswered,
    ReadConfirmed,
    ReadStarted,
    Restored,
    Role,
    Server,
)


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


def withholds_vote(step: Transition) -> bool:
    """A free vote is withheld from an up-to-date log, because a leader was heard of not long ago (section 4.2.3)."""
    m = step.arguments[0] if step.arguments else None
    if not isinstance(m, RequestVoteRequest) or step.action != "handle_request_vote_request":
        return False
    up_to_date = (m.last_log_term, m.last_log_index) >= (step.before.log.last_term, step.before.log.length)
    free = m.term == step.before.current_term and step.before.voted_for is None
    return free and up_to_date and step.after.voted_for is None


def commits_configuration(step: Transition) -> bool:
    """A leader commits the latest configuration of its log."""
    latest = step.after.log.configuration_index
    return has_fact(step, Committed) and step.before.commit_index < latest <= step.after.commit_index


def commits_without_vote(step: Transition) -> bool:
    """A leader that has no vote in the latest configuration commits (section 4.2.2)."""
    latest = step.after.log.configuration
    return has_fact(step, Committed) and latest is not None and step.server not in latest.voters


def promotes(step: Transition) -> bool:
    """A server that had no vote gets one."""
    old, new = step.before.log.configuration, step.after.log.configuration
    return (
        step.action == "change_configuration"
        and old is not None
        and new is not None
        and not set(old.nonvoters).isdisjoint(new.voters)
    )


def installs(step: Transition) -> bool:
    """A snapshot replaces a log."""
    return step.action == "handle_install_snapshot_request" and len(step.after.issued) > len(step.before.issued)


def installs_over_conflict(step: Transition) -> bool:
    """A snapshot replaces a log that has another entry where the snapshot ends."""
    m = step.arguments[0] if step.arguments else None
    return installs(step) and isinstance(m, InstallSnapshotRequest) and m.last_index <= step.before.log.length


def keeps_suffix(step: Transition) -> bool:
    """A log that holds a snapshot's last entry, and more, is kept."""
    m = step.arguments[0] if step.arguments else None
    return (
        isinstance(m, InstallSnapshotRequest)
        and m.term == step.before.current_term
        and not installs(step)
        and m.last_index < step.after.log.length
        and step.after.leader_match >= m.last_index
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
    "a server campaigns with pre-votes": lambda step: step.action == "timeout" and bool(step.before.pre_votes),
    "a pre-vote is refused": lambda step: any(
        isinstance(m, PreVoteResponse) and not m.granted for m in step.outcome.sent
    ),
    "a vote is withheld from an up-to-date log": withholds_vote,
    "a server campaigns since a lease has ended": lambda step: step.action == "timeout" and step.before.lease_ended,
    "a server need not wait at a candidate's word": lambda step: (
        step.action == "update_term" and step.after.urged_by > 0 and not step.before.lease_ended
    ),
    "a read is confirmed by lease": lambda step: has_fact(step, ReadStarted) and has_fact(step, ReadConfirmed),
    "a configuration is committed": commits_configuration,
    "a leader without a vote commits": commits_without_vote,
    "a server without a vote gets one": promotes,
    "a log is compacted": lambda step: step.action == "compact",
    "a snapshot replaces a log": installs,
    "a snapshot replaces a conflicting log": installs_over_conflict,
    "a log that holds a snapshot's last entry is kept": keeps_suffix,
    "a state machine is replaced": lambda step: has_fact(step, Restored),
    "a server restarts from a snapshot": lambda step: step.action == "crash_restart" and step.after.last_applied > 0,
}
"""Witnesses in a local step, by name."""

SOMETIMES_PAIR: Final[Mapping[str, Callable[[Server, Server], bool]]] = {
    "two leaders at once, in different terms": lambda s, t: (
        s.role is t.role is Role.LEADER and s.current_term != t.current_term
    ),
}
"""Witnesses in two servers of one world, by name."""
