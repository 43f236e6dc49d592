"""Deliberately broken variants of the spec: each replaces named actions, and exploration must find what it breaks.

A check that finds nothing in a broken protocol proves nothing of the right one. Every mutant says within which bounds
and from which start it is found, and which theorem it breaks; the tests demand that property and no other. Linking
rejects those that touch the disk's state. Here are mutants of chapter 3 and of reads by confirmation; `feature_mutants`
has those of membership changes, snapshots and leases.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from msgspec.structs import replace

from model_checks.explore.feature_mutants import FEATURE_MUTANTS, answer_any_round
from model_checks.explore.mutant import Mutant, miscounted
from spec.raft import actions
from spec.raft.actions import Action
from spec.raft.bounds import Bounds
from spec.raft.log import Log
from spec.raft.messages import (
    AppendEntriesRequest,
    Message,
    RequestVoteRequest,
    RequestVoteResponse,
)
from spec.raft.state import held_durably, issue, restarted
from spec.raft.types import (
    Applied,
    Committed,
    Configuration,
    Constants,
    Entry,
    Index,
    Outcome,
    Point,
    Read,
    ReadAnswered,
    ReadStarted,
    Role,
    Server,
    ServerId,
    Time,
    Value,
)


class AnyQuorum(Configuration, frozen=True):
    """A configuration in which any server is a quorum."""

    def is_quorum(self, servers: Collection[ServerId]) -> bool:
        """Whether there are any servers."""
        return bool(servers)


def with_any_quorum(action: Action) -> Action:
    """`action` in a cluster where any server is a quorum."""
    return miscounted(action, AnyQuorum)


def with_disk_at_memory(action: Action) -> Action:
    """`action` that believes every issued write to be durable; the server's disk itself stays as it is."""

    def hasty(c: Constants, i: ServerId, s: Server, *args: object) -> Outcome | None:
        outcome = action(c, i, replace(s, durable=s.memory, issued=()), *args)
        if outcome is None:
            return None
        return replace(outcome, server=replace(outcome.server, durable=s.durable, issued=s.issued))

    return hasty


# --------------------------------------------------------------------------------------------------------- elections


def grant_second_vote(c: Constants, i: ServerId, s: Server, m: RequestVoteRequest, now: Time) -> Outcome | None:
    """Grants a vote whether or not another candidate of the term has it."""
    forgetful = replace(s, durable=Point(s.current_term, None, s.log), issued=())
    outcome = actions.handle_request_vote_request(c, i, forgetful, m, now)
    if outcome is None or not outcome.server.issued:
        return outcome and Outcome(s)
    return Outcome(replace(s, issued=(*s.issued, *outcome.server.issued)))


def grant_to_outdated_log(c: Constants, i: ServerId, s: Server, m: RequestVoteRequest, now: Time) -> Outcome | None:
    """Grants a vote without comparing logs."""
    flattered = replace(m, last_log_term=s.log.last_term, last_log_index=s.log.length)
    return actions.handle_request_vote_request(c, i, s, flattered, now)


def lead_before_own_vote_is_durable(c: Constants, i: ServerId, s: Server) -> Outcome | None:
    """Counts its own vote before it is on disk."""
    return with_disk_at_memory(actions.become_leader)(c, i, s)


def restart_without_vote(c: Constants, i: ServerId, s: Server, k: int, now: Time) -> Outcome | None:
    """Finds term and log on its disk when it starts, but not its vote."""
    outcome = actions.crash_restart(c, i, s, k, now)
    if outcome is None:
        return None
    return Outcome(restarted(replace(outcome.server.durable, voted_for=None), now))


def count_stale_vote(c: Constants, i: ServerId, s: Server, m: RequestVoteResponse) -> Outcome | None:
    """Counts votes of older terms as if they were of its own."""
    fresh = replace(m, term=s.current_term) if m.term < s.current_term else m
    return actions.handle_request_vote_response(c, i, s, fresh)


def keep_leader_match(c: Constants, i: ServerId, s: Server, m: Message) -> Outcome | None:
    """Still believes of the new term's leader what it knew of the old one's log."""
    outcome = actions.update_term(c, i, s, m)
    return outcome and replace(outcome, server=replace(outcome.server, leader_match=s.leader_match))


def lead_with_votes_kept(c: Constants, i: ServerId, s: Server) -> Outcome | None:
    """Becomes leader and still counts votes."""
    outcome = actions.become_leader(c, i, s)
    return outcome and replace(outcome, server=replace(outcome.server, votes=s.votes))


# ------------------------------------------------------------------------------------------------------- replication


def overwrite_own_entry(c: Constants, i: ServerId, s: Server, value: Value) -> Outcome | None:
    """A leader replaces the last entry of its term instead of appending after it."""
    outcome = actions.client_request(c, i, s, value)
    if outcome is None or s.log.last_term != s.current_term:
        return outcome
    log = s.log.truncate(s.log.length - 1).append(Entry(s.current_term, value + "'"))
    return Outcome(replace(s, issued=issue(s, Point(s.current_term, s.voted_for, log))))


def take_without_previous_term(
    c: Constants, i: ServerId, s: Server, m: AppendEntriesRequest, now: Time
) -> Outcome | None:
    """Takes entries if its log is long enough, whatever entry it holds before them."""
    fits = m.dest == i and m.prev_log_index <= s.log.length
    believed = replace(m, prev_log_term=s.log.term_at(m.prev_log_index)) if fits else m
    return actions.handle_append_entries_request(c, i, s, believed, now)


def truncate_without_conflict(
    c: Constants, i: ServerId, s: Server, m: AppendEntriesRequest, now: Time
) -> Outcome | None:
    """Cuts its log to the message's entries even where they agree: an old message shortens it."""
    outcome = actions.handle_append_entries_request(c, i, s, m, now)
    end = m.prev_log_index + len(m.entries)
    taken = outcome is not None and m.term == s.current_term and s.log.length > end
    if outcome is None or not taken or not log_holds(s.log, m):
        return outcome
    after = outcome.server
    cut = Point(s.current_term, s.voted_for, s.log.truncate(max(end, s.commit_index)))
    return Outcome(replace(after, issued=issue(after, cut, cause=m), leader_match=min(after.leader_match, end)))


def log_holds(log: Log, m: AppendEntriesRequest) -> bool:
    """Whether `log` holds the entry before the message's entries, and the entries themselves."""
    end = m.prev_log_index + len(m.entries)
    return (
        end <= log.length
        and log.term_at(m.prev_log_index) == m.prev_log_term
        and log.slice(m.prev_log_index, end) == m.entries
    )


def commit_all_received(c: Constants, i: ServerId, s: Server, m: AppendEntriesRequest, now: Time) -> Outcome | None:
    """Takes everything that its leader sends for committed."""
    last = m.prev_log_index + len(m.entries)
    return actions.handle_append_entries_request(c, i, s, replace(m, commit_index=last), now)


def lower_commit_index(c: Constants, i: ServerId, s: Server, m: AppendEntriesRequest, now: Time) -> Outcome | None:
    """Believes the commit index of the latest message, even if it is lower than one heard before."""
    outcome = actions.handle_append_entries_request(c, i, s, m, now)
    if outcome is None or outcome.server.leader_match < m.prev_log_index + len(m.entries):
        return outcome
    return replace(outcome, server=replace(outcome.server, commit_index=max(s.last_applied, m.commit_index)))


def commit_older_term(c: Constants, i: ServerId, s: Server, index: Index) -> Outcome | None:
    """Commits any entry that a quorum holds, of whatever term: figure 8 of the paper."""
    if s.role is not Role.LEADER or not s.commit_index < index <= s.log.length:
        return None
    holders = {peer for peer, match in s.match_index if match >= index}
    if held_durably(s, index):
        holders.add(i)
    if not c.configuration(s.log).is_quorum(holders):
        return None
    return Outcome(replace(s, commit_index=index), facts=(Committed(s.current_term, index, s.log.truncate(index)),))


def apply_uncommitted(c: Constants, i: ServerId, s: Server) -> Outcome | None:
    """Applies whatever its disk holds, committed or not; and calls it committed."""
    index = s.last_applied + 1
    if index > s.log.length or not held_durably(s, index):
        return None
    believed = replace(s, last_applied=index, commit_index=max(s.commit_index, index))
    return Outcome(believed, facts=(Applied(i, index, s.log.entry(index)),))


# ------------------------------------------------------------------------------------------------------------- reads


def read_before_own_commit(c: Constants, i: ServerId, s: Server, read: str, now: Time) -> Outcome | None:
    """A new leader takes its commit index for current before it has committed an entry of its own term."""
    if s.role is not Role.LEADER or any(waiting.id == read for waiting in s.reads + s.confirmed):
        return None
    waiting = Read(id=read, index=s.commit_index, round=s.round + 1)
    fact = ReadStarted(read, s.current_term, s.commit_index)
    return Outcome(replace(s, round=s.round + 1, reads=(*s.reads, waiting)), facts=(fact,))


def answer_before_applied(c: Constants, i: ServerId, s: Server, read: str) -> Outcome | None:
    """Answers a confirmed read from a state machine that lags behind its index."""
    found = next((waiting for waiting in s.confirmed if waiting.id == read), None)
    if found is None:
        return None
    rest = tuple(other for other in s.confirmed if other.id != read)
    return Outcome(replace(s, confirmed=rest), facts=(ReadAnswered(read, found.index, s.last_applied),))


# ------------------------------------------------------------------------------------------------------------- table


SHALLOW = Bounds(max_term=1, max_issued=1)
TWO_TERMS = Bounds(max_term=2, max_issued=1)

MUTANTS: Final[Mapping[str, Mutant]] = {
    "two_votes": Mutant(
        replaces={"handle_request_vote_request": grant_second_vote},
        breaks="Election Safety",
        bounds=Bounds(max_term=1),
        also=("Durable Promises",),
    ),
    "no_up_to_date_check": Mutant(
        replaces={"handle_request_vote_request": grant_to_outdated_log},
        breaks="Leader Completeness",
        bounds=TWO_TERMS,
        start="replicated",
    ),
    "no_prev_check": Mutant(
        replaces={"handle_append_entries_request": take_without_previous_term},
        breaks="Log Matching",
        bounds=Bounds(max_term=2, max_log=2),
        start="diverged",
    ),
    "old_term_commit": Mutant(
        replaces={"advance_commit_index": commit_older_term},
        breaks="Leader Completeness",
        bounds=Bounds(max_term=4, max_issued=1),
        start="figure_8",
    ),
    "elected_without_quorum": Mutant(
        replaces={"become_leader": with_any_quorum(actions.become_leader)}, breaks="Election Safety", bounds=SHALLOW
    ),
    "commit_without_quorum": Mutant(
        replaces={"advance_commit_index": with_any_quorum(actions.advance_commit_index)},
        breaks="Leader Completeness",
        bounds=TWO_TERMS,
    ),
    "votes_survive_election": Mutant(
        replaces={"become_leader": lead_with_votes_kept}, breaks="Type Invariant", bounds=SHALLOW
    ),
    "vote_before_durable": Mutant(
        replaces={"vote_response": with_disk_at_memory(actions.vote_response)},
        breaks="Election Safety",
        bounds=Bounds(max_term=1, max_log=0, max_restarts=1),
        also=("Durable Messages",),
    ),
    "self_vote_before_durable": Mutant(
        replaces={"become_leader": lead_before_own_vote_is_durable},
        breaks="Durable Self-Vote",
        bounds=Bounds(servers=1, max_term=1),
    ),
    "vote_forgotten_at_restart": Mutant(
        replaces={"crash_restart": restart_without_vote},
        breaks="Election Safety",
        bounds=Bounds(max_term=1, max_log=0, max_restarts=1),
        also=("Durable Promises",),
    ),
    "stale_vote_counted": Mutant(
        replaces={"handle_request_vote_response": count_stale_vote}, breaks="Stale Messages", bounds=TWO_TERMS
    ),
    "leader_match_survives_term": Mutant(
        replaces={"update_term": keep_leader_match},
        breaks="Leader Completeness",
        bounds=Bounds(max_term=3, max_issued=1),
        start="orphaned",
        also=("Acknowledged Was Sent",),
    ),
    "leader_overwrites": Mutant(
        replaces={"client_request": overwrite_own_entry},
        breaks="Leader Append-Only",
        bounds=Bounds(max_term=1, max_log=2, max_issued=1),
    ),
    "truncate_without_conflict": Mutant(
        replaces={"handle_append_entries_request": truncate_without_conflict},
        breaks="Leader Completeness",
        bounds=Bounds(max_term=2, max_log=2, max_issued=1),
        start="replicated",
    ),
    "ack_before_durable": Mutant(
        replaces={"append_entries_response": with_disk_at_memory(actions.append_entries_response)},
        breaks="Leader Completeness",
        bounds=Bounds(max_term=2, max_issued=1, max_restarts=1),
        start="elected",
        also=("Durable Messages",),
    ),
    "leader_counts_itself_before_durable": Mutant(
        replaces={"advance_commit_index": with_disk_at_memory(actions.advance_commit_index)},
        breaks="Leader Completeness",
        bounds=Bounds(max_term=2, max_issued=1, max_restarts=1),
        start="elected",
    ),
    "commit_all_received": Mutant(
        replaces={"handle_append_entries_request": commit_all_received}, breaks="Committed Indexes", bounds=SHALLOW
    ),
    "commit_index_falls": Mutant(
        replaces={"handle_append_entries_request": lower_commit_index}, breaks="Monotone Indexes", bounds=SHALLOW
    ),
    "apply_uncommitted": Mutant(replaces={"apply": apply_uncommitted}, breaks="State Machine Safety", bounds=SHALLOW),
    "apply_before_durable": Mutant(
        replaces={"apply": with_disk_at_memory(actions.apply)}, breaks="Durable Apply", bounds=SHALLOW
    ),
    "read_without_own_commit": Mutant(
        replaces={"read_request": read_before_own_commit},
        breaks="Read Linearizability",
        bounds=Bounds(max_term=2, max_issued=1, reads=("r1",)),
        start="deposed_leader",
    ),
    "read_without_confirmation": Mutant(
        replaces={"confirm_read": with_any_quorum(actions.confirm_read)},
        breaks="Read Linearizability",
        bounds=Bounds(max_term=2, max_log=2, max_issued=1, reads=("r1",)),
        start="deposed_leader",
    ),
    "round_not_numbered": Mutant(
        replaces={"handle_append_entries_response": answer_any_round},
        breaks="Read Linearizability",
        bounds=Bounds(max_term=2, max_log=2, max_issued=1, reads=("r1",)),
        start="deposed_leader",
    ),
    "read_before_applied": Mutant(
        replaces={"answer_read": answer_before_applied},
        breaks="Read Linearizability",
        bounds=Bounds(max_term=1, max_issued=1, reads=("r1",)),
        start="replicated",
    ),
    **FEATURE_MUTANTS,
}
"""Mutants by name.

`breaks` is the theorem at the end of the chain where there is one, not the rule nearest to the fault.
"""
