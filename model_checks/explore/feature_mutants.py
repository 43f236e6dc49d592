"""Deliberately broken variants of membership changes, snapshots and leases; see `mutants`.

Three broken rules have no mutant here, because no safety property sees them. A server that campaigns without pre-votes
disturbs its leader and breaks nothing (Ongaro 2014, section 9.6: pre-vote is for availability). A server that takes on
the term of a pre-vote request does by another way what a candidate's request does; it only defeats the purpose. And a
third would change nothing: who campaigns because a lease has ended does so in the very next term, so a voter that has
still to enter that term knows no later leader than the one whose lease ended.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from msgspec.structs import replace

from model_checks.explore.mutant import Mutant, miscounted
from model_checks.explore.starts import LEASES, voters
from spec.raft import actions, membership
from spec.raft.actions import Action
from spec.raft.bounds import Bounds
from spec.raft.messages import AppendEntriesResponse, InstallSnapshotRequest, LeaseEnded, RequestVoteRequest
from spec.raft.state import issue
from spec.raft.types import (
    Configuration,
    Constants,
    Index,
    Outcome,
    Role,
    Server,
    ServerId,
    Time,
    Value,
)

# -------------------------------------------------------------------------------------------------------- membership


def may_propose(c: Constants, s: Server, configuration: Configuration) -> bool:
    """What no mutant of `change_configuration` leaves out."""
    well_formed = membership.is_well_formed(c, configuration) and configuration.allowed_by == s.commit_index
    return s.role is Role.LEADER and well_formed


def change_before_own_commit(
    c: Constants, i: ServerId, s: Server, configuration: Configuration, value: Value = ""
) -> Outcome | None:
    """Changes the configuration before it has committed an entry of its own term."""
    one_change = membership.statuses_changed(c.configuration(s.log), configuration) == 1
    if not may_propose(c, s, configuration) or not one_change or not membership.latest_is_committed(s):
        return None
    return Outcome(membership.proposed(c, i, s, configuration, value))


def change_before_last_commit(
    c: Constants, i: ServerId, s: Server, configuration: Configuration, value: Value = ""
) -> Outcome | None:
    """Changes the configuration before the change before is committed."""
    one_change = membership.statuses_changed(c.configuration(s.log), configuration) == 1
    if not may_propose(c, s, configuration) or not one_change or not membership.own_term_is_committed(s):
        return None
    return Outcome(membership.proposed(c, i, s, configuration, value))


def change_several(
    c: Constants, i: ServerId, s: Server, configuration: Configuration, value: Value = ""
) -> Outcome | None:
    """Changes the status of several servers at once."""
    committed = membership.latest_is_committed(s) and membership.own_term_is_committed(s)
    if not may_propose(c, s, configuration) or not committed:
        return None
    return Outcome(membership.proposed(c, i, s, configuration, value))


class CountsNonvoters(Configuration, frozen=True):
    """A configuration in which members without a vote count, too."""

    def is_quorum(self, servers: Collection[ServerId]) -> bool:
        """Whether as many members as make a majority of the voters are among `servers`."""
        return 2 * sum(1 for member in self.members if member in servers) > len(self.voters)


def commit_by_nonvoters(c: Constants, i: ServerId, s: Server, index: Index) -> Outcome | None:
    """Counts the acknowledgements of members without a vote."""
    return miscounted(actions.advance_commit_index, CountsNonvoters)(c, i, s, index)


class CountsLeader(Configuration, frozen=True):
    """A configuration of which the leader, which left it, is not a member; it counts itself all the same."""

    def is_quorum(self, servers: Collection[ServerId]) -> bool:
        """Whether there are as many servers as make a majority of the voters."""
        return 2 * len(servers) > len(self.voters)


def commit_by_absent_leader(c: Constants, i: ServerId, s: Server, index: Index) -> Outcome | None:
    """A leader that has left the configuration counts itself."""
    return miscounted(actions.advance_commit_index, CountsLeader)(c, i, s, index)


# --------------------------------------------------------------------------------------------------------- snapshots


def install_whatever_is_held(
    c: Constants, i: ServerId, s: Server, m: InstallSnapshotRequest, now: Time
) -> Outcome | None:
    """Replaces its log by the snapshot even if it holds the snapshot's last entry, and drops what follows."""
    outcome = actions.handle_install_snapshot_request(c, i, s, m, now)
    if outcome is None or m.term != s.current_term or m.last_index <= s.memory.snapshot:
        return outcome
    installed = replace(s.memory, log=m.log, snapshot=m.last_index, base=m.last_index)
    after = replace(
        outcome.server,
        issued=issue(s, installed, cause=m),
        leader_match=m.last_index,
        commit_index=m.last_index,
        last_applied=min(s.last_applied, m.last_index),
    )
    return Outcome(after)


def install_older_snapshot(
    c: Constants, i: ServerId, s: Server, m: InstallSnapshotRequest, now: Time
) -> Outcome | None:
    """Installs a snapshot although its own is newer."""
    outcome = actions.handle_install_snapshot_request(c, i, s, m, now)
    if outcome is None or m.term != s.current_term or m.last_index >= s.memory.base:
        return outcome
    installed = replace(s.memory, log=m.log, snapshot=m.last_index, base=m.last_index)
    back = {"commit_index": m.last_index, "last_applied": min(s.last_applied, m.last_index)}
    after = replace(outcome.server, issued=issue(s, installed, cause=m), leader_match=m.last_index, **back)
    return Outcome(after)


def snapshot_of_uncommitted(c: Constants, i: ServerId, s: Server, index: Index) -> Outcome | None:
    """Takes a snapshot of whatever its log holds, committed or not."""
    if not s.memory.snapshot < index <= s.log.length:
        return None
    return Outcome(replace(s, issued=issue(s, replace(s.memory, snapshot=index))))


# ------------------------------------------------------------------------------------------------------------ leases


def vote_without_waiting(c: Constants, i: ServerId, s: Server, m: RequestVoteRequest, now: Time) -> Outcome | None:
    """Votes although it has just heard from a leader."""
    return actions.handle_request_vote_request(replace(c, election_timeout=0), i, s, m, now)


def campaign_without_waiting(c: Constants, i: ServerId, s: Server, now: Time) -> Outcome | None:
    """Campaigns, and votes for itself, although it has just heard from a leader."""
    return actions.timeout(replace(c, election_timeout=0), i, s, now)


def restart_without_waiting(c: Constants, i: ServerId, s: Server, k: int, now: Time) -> Outcome | None:
    """Votes right after a restart: it has forgotten that it heard from a leader."""
    return actions.crash_restart(c, i, s, k, -c.election_timeout)


def read_in_the_last_instant(c: Constants, i: ServerId, s: Server, read: str, now: Time) -> Outcome | None:
    """Answers by its lease up to the very instant in which its followers may vote."""
    return actions.lease_read(replace(c, lease=c.election_timeout), i, s, read, now)


def read_while_transferring(c: Constants, i: ServerId, s: Server, read: str, now: Time) -> Outcome | None:
    """Answers by its lease while it transfers its leadership."""
    return actions.lease_read(c, i, replace(s, transferring=False), read, now)


def count_lease_from_reply(c: Constants, i: ServerId, s: Server, m: AppendEntriesResponse, now: Time) -> Outcome | None:
    """Counts its lease from the reply to a round, not from its begin."""
    renewed = tuple((number, now if number <= m.round else start) for number, start in s.round_starts)
    return actions.handle_append_entries_response(c, i, replace(s, round_starts=renewed), m)


def answer_any_round(c: Constants, i: ServerId, s: Server, m: AppendEntriesResponse) -> Outcome | None:
    """Takes any answer of its term for an answer to the newest round, as if rounds were not numbered."""
    renumbered = replace(m, round=s.round) if m.term == s.current_term else m
    return actions.handle_append_entries_response(c, i, s, renumbered)


def believe_end_of_older_lease(c: Constants, i: ServerId, s: Server, m: LeaseEnded) -> Outcome | None:
    """Takes the end of an older leader's lease for the end of the current one's."""
    return actions.handle_lease_ended(c, i, s, replace(m, term=s.current_term) if m.term < s.current_term else m)


# ------------------------------------------------------------------------------------------------------------- table

PROPOSING = Bounds(max_term=2, max_log=3, max_issued=1, values=())
SNAPSHOTS = Bounds(max_term=2, max_log=2, max_issued=1, snapshots=True, values=())
LEASE_READ = replace(LEASES, max_term=2, max_log=2, max_issued=1, lease_reads=("r1",))


def stale_read(action: str, broken: Action, start: str, **limits: int) -> Mutant:
    """A mutant that lets a leader answer by a lease which protects it no more."""
    return Mutant(
        replaces={action: broken}, breaks="Read Linearizability", bounds=replace(LEASE_READ, **limits), start=start
    )


FEATURE_MUTANTS: Final[Mapping[str, Mutant]] = {
    "configuration_before_own_commit": Mutant(
        replaces={"change_configuration": change_before_own_commit},
        breaks="Leader Completeness",
        bounds=replace(PROPOSING, servers=4, max_term=3, max_log=2, configurations=voters("s2 s3 s4")),
        start="own_term",
    ),
    "configuration_before_last_commit": Mutant(
        replaces={"change_configuration": change_before_last_commit},
        breaks="Leader Completeness",
        bounds=replace(PROPOSING, configurations=voters("s1 s2", "s1")),
        start="committed",
        also=("One Configuration at a Time",),
    ),
    "several_servers_at_once": Mutant(
        replaces={"change_configuration": change_several},
        breaks="Leader Completeness",
        bounds=replace(PROPOSING, max_log=2, configurations=voters("s1")),
        start="committed",
    ),
    "nonvoter_counted": Mutant(
        replaces={"advance_commit_index": commit_by_nonvoters},
        breaks="Leader Completeness",
        bounds=replace(PROPOSING, servers=4, genesis=3),
        start="learner_ahead",
    ),
    "absent_leader_counted": Mutant(
        replaces={"advance_commit_index": commit_by_absent_leader},
        breaks="Leader Completeness",
        bounds=replace(PROPOSING, servers=4),
        start="leader_left",
    ),
    "snapshot_drops_suffix": Mutant(
        replaces={"handle_install_snapshot_request": install_whatever_is_held},
        breaks="Leader Completeness",
        bounds=SNAPSHOTS,
        start="kept_suffix",
    ),
    "older_snapshot_installed": Mutant(
        replaces={"handle_install_snapshot_request": install_older_snapshot},
        breaks="Monotone Snapshots",
        bounds=replace(SNAPSHOTS, max_term=1),
        start="two_snapshots",
        also=("Monotone Indexes",),
    ),
    "snapshot_of_uncommitted": Mutant(
        replaces={"take_snapshot": snapshot_of_uncommitted},
        breaks="Committed Snapshots",
        bounds=replace(SNAPSHOTS, max_term=1, values=("x",)),
    ),
    "vote_without_waiting": stale_read("handle_request_vote_request", vote_without_waiting, "challenged", max_time=4),
    "campaign_without_waiting": stale_read("timeout", campaign_without_waiting, "leased", max_time=4),
    "restart_without_waiting": stale_read(
        "crash_restart", restart_without_waiting, "challenged", max_time=4, max_restarts=1
    ),
    "lease_ends_as_votes_begin": stale_read("lease_read", read_in_the_last_instant, "lease_over", max_time=6),
    "transfer_with_lease": stale_read("lease_read", read_while_transferring, "transferring", max_time=4),
    "lease_from_reply": stale_read("handle_append_entries_response", count_lease_from_reply, "lease_over", max_time=6),
    "lease_from_any_round": stale_read("handle_append_entries_response", answer_any_round, "lease_over", max_time=6),
    "end_of_older_lease_believed": Mutant(
        replaces={"handle_lease_ended": believe_end_of_older_lease},
        breaks="Stale Messages",
        bounds=replace(LEASE_READ, max_time=4, steps_down=True),
        start="leased",
    ),
}
"""The mutants by name."""
