"""Log compaction and InstallSnapshot, in the words of Ongaro 2014, chapter 5."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from spec.raft.actions import ACTIONS, initial_server, restarted
from spec.raft.log import EMPTY, Log, log_of
from spec.raft.messages import AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest
from spec.raft.types import Applied, Constants, Entry, Index, Outcome, Point, Restored, Role, Server, Write

C = Constants(servers=("a", "b", "c"))


def logged(*terms: int) -> Log:
    return log_of(Entry(term, f"x{index}") for index, term in enumerate(terms, start=1))


def follower(log: Log = EMPTY, snapshot: Index = 0, base: Index = 0, **fields: object) -> Server:
    return replace(restarted(Point(2, None, log, snapshot, base)), **fields)


def leader(log: Log, snapshot: Index = 0, base: Index = 0, **fields: object) -> Server:
    nothing = (("b", 0), ("c", 0))
    server = restarted(Point(2, "a", log, snapshot, base))
    return replace(server, role=Role.LEADER, leader_id="a", match_index=nothing, acked_round=nothing, **fields)


def act(action: str, server: Server, *arguments: object) -> Outcome | None:
    return ACTIONS[action](C, "a", server, *arguments)


def after(action: str, server: Server, *arguments: object) -> Server:
    outcome = act(action, server, *arguments)
    assert outcome is not None, f"{action} is not enabled"
    return outcome.server


def snapshot_of(log: Log, term: int = 2, round: int = 0) -> InstallSnapshotRequest:
    return InstallSnapshotRequest(term, "b", "a", log.length, log.last_term, log, round)


def entries_from(prev: Log, *terms: int, commit: Index = 0) -> AppendEntriesRequest:
    entries = tuple(Entry(term, f"x{prev.length + number}") for number, term in enumerate(terms, start=1))
    return AppendEntriesRequest(2, "b", "a", prev.length, prev.last_term, entries, commit, 0)


def persisted(server: Server) -> Server:
    return after("persist", server, len(server.issued))


# --------------------------------------------------------------------------------------------------------- compaction


def test_a_server_snapshots_what_it_has_applied_and_no_more() -> None:
    server = follower(logged(1, 1, 1), commit_index=3, last_applied=2)
    taken = after("take_snapshot", server, 2)
    assert (taken.memory.snapshot, taken.memory.base, taken.durable.snapshot) == (2, 0, 0)
    assert act("take_snapshot", server, 3) is None
    assert act("take_snapshot", taken, 2) is None
    assert act("take_snapshot", taken, 1) is None, "a snapshot never goes back"


def test_a_server_discards_the_log_up_to_its_snapshot_and_no_further() -> None:
    taken = after("take_snapshot", follower(logged(1, 1, 1), commit_index=3, last_applied=3), 2)
    compacted = after("compact", taken, 2)
    assert [(write.point.snapshot, write.point.base) for write in compacted.issued] == [(2, 0), (2, 2)]
    assert act("compact", taken, 3) is None
    assert act("compact", compacted, 2) is None
    assert act("compact", initial_server(), 0) is None


def test_a_restart_begins_with_the_snapshot() -> None:
    server = follower(logged(1, 1, 1), 2, 1, commit_index=3, last_applied=3)
    again = after("crash_restart", server, 0, 0)
    assert (again.last_applied, again.commit_index) == (2, 2)
    assert act("apply", again) is None
    third = after("apply", replace(again, commit_index=3))
    assert third.last_applied == 3


def test_a_leader_sends_no_entry_that_it_has_discarded() -> None:
    server = leader(logged(1, 1, 2), 2, 2)
    assert act("append_entries", server, "b", 1, 3) is None
    outcome = act("append_entries", server, "b", 2, 3)
    assert outcome is not None
    (request,) = outcome.sent
    assert isinstance(request, AppendEntriesRequest)
    assert (request.prev_log_index, request.prev_log_term) == (2, 1), "the last discarded term is known"


# ---------------------------------------------------------------------------------------------------- InstallSnapshot


def test_a_leader_sends_the_snapshot_that_is_on_its_disk() -> None:
    log = logged(1, 1, 2)
    server = leader(log, 1, round=4, last_applied=2, commit_index=2)
    writing = after("take_snapshot", server, 2)
    outcome = act("install_snapshot", writing, "b")
    assert outcome is not None
    assert outcome.server == writing, "a send changes nothing"
    assert outcome.sent == (InstallSnapshotRequest(2, "a", "b", 1, 1, logged(1), 4),)
    assert act("install_snapshot", writing, "a") is None
    assert act("install_snapshot", leader(log), "b") is None
    assert act("install_snapshot", follower(log, 1), "b") is None


def test_a_follower_without_the_snapshots_last_entry_discards_its_entire_log() -> None:
    request = snapshot_of(logged(1, 2))
    server = after("handle_install_snapshot_request", follower(logged(1, 1, 1), leader_match=0), request, 3)
    assert server.issued == (Write(Point(2, None, logged(1, 2), 2, 2), request),)
    assert (server.leader_id, server.heard_at, server.leader_match, server.commit_index) == ("b", 3, 2, 2)
    assert server.last_applied == 0, "the state machine is replaced when the snapshot is durable"
    assert act("restore_snapshot", server) is None
    outcome = act("restore_snapshot", persisted(server))
    assert outcome is not None
    assert outcome.facts == (Restored("a", 2, logged(1, 2)),)
    assert outcome.server.last_applied == 2
    assert act("restore_snapshot", outcome.server) is None


def test_a_follower_that_holds_the_snapshots_last_entry_keeps_what_follows() -> None:
    held = follower(logged(1, 1, 2), round=1)
    server = after("handle_install_snapshot_request", held, snapshot_of(logged(1, 1), round=5), 0)
    assert server.issued == ()
    assert (server.leader_match, server.commit_index, server.round) == (2, 2, 5)
    exact = after("handle_install_snapshot_request", follower(logged(1, 1), 2, 2), snapshot_of(logged(1, 1)), 0)
    assert (exact.issued, exact.leader_match) == ((), 2), "the term at the base is known"


@pytest.mark.parametrize(
    "further",
    [
        follower(logged(1, 1, 1, 2), 3, 3),
        follower(logged(1, 1, 1, 2), 3, 3, commit_index=4, last_applied=4),
        follower(logged(1), issued=(Write(Point(2, None, logged(1, 1, 1), 3, 3)),), commit_index=3),
    ],
)
def test_an_older_snapshot_is_never_installed(further: Server) -> None:
    server = after("handle_install_snapshot_request", further, snapshot_of(logged(1, 1)), 0)
    assert server.issued == further.issued
    assert (server.commit_index, server.leader_match) == (further.commit_index, 0)
    assert server.leader_id == "b", "its sender is the leader all the same"


def test_a_snapshot_of_an_older_term_is_ignored_and_one_of_a_newer_waits_for_the_term() -> None:
    server = follower(logged(1))
    assert after("handle_install_snapshot_request", server, snapshot_of(logged(1, 1), term=1), 5) == server
    assert act("handle_install_snapshot_request", server, snapshot_of(logged(1, 1), term=3), 5) is None
    assert act("handle_install_snapshot_request", leader(logged(1)), snapshot_of(logged(1, 1)), 5) is None
    assert act("handle_install_snapshot_request", server, replace(snapshot_of(logged(1, 1)), dest="c"), 5) is None


def test_nothing_is_acknowledged_of_a_snapshot_before_it_is_on_disk() -> None:
    server = after("handle_install_snapshot_request", follower(logged(1)), snapshot_of(logged(1, 2)), 0)
    assert act("append_entries_response", server, "b", True, 2) is None
    assert act("append_entries_response", server, "b", True, 1) is None, "memory has forgotten what the disk holds"
    outcome = act("append_entries_response", persisted(server), "b", True, 2)
    assert outcome is not None
    assert outcome.sent == (AppendEntriesResponse(2, "a", "b", True, 2, 0),)


def test_a_crash_keeps_the_whole_snapshot_or_nothing_of_it() -> None:
    server = after("handle_install_snapshot_request", follower(logged(1, 1)), snapshot_of(logged(1, 2, 2)), 0)
    lost, kept = after("crash_restart", server, 0, 0), after("crash_restart", server, 1, 0)
    assert (lost.log, lost.last_applied) == (logged(1, 1), 0)
    assert (kept.log, kept.last_applied, kept.memory.base) == (logged(1, 2, 2), 3, 3)


def test_entries_are_applied_only_to_a_state_machine_that_has_the_snapshot() -> None:
    installing = after("handle_install_snapshot_request", follower(logged(1)), snapshot_of(logged(1, 2)), 0)
    more = after("handle_append_entries_request", installing, entries_from(logged(1, 2), 2, commit=3), 0)
    assert act("apply", more) is None, "nor the first entry, which the old disk holds"
    installed = persisted(more)
    assert act("apply", installed) is None
    outcome = act("apply", after("restore_snapshot", installed))
    assert outcome is not None
    assert outcome.facts == (Applied("a", 3, Entry(2, "x3")),)


# ---------------------------------------------------------------------------------------------- entries below the base


def test_what_is_compacted_is_neither_compared_nor_cut() -> None:
    server = follower(logged(1, 1, 1), 2, 2)
    older = entries_from(EMPTY, 1, 1, 1, 2, commit=4)
    taken = after("handle_append_entries_request", server, older, 0)
    assert taken.log == logged(1, 1, 1, 2)
    assert (taken.leader_match, taken.commit_index, taken.memory.base) == (4, 4, 2)


def test_a_request_that_ends_below_the_base_changes_nothing_on_disk() -> None:
    server = follower(logged(1, 1, 1), 2, 2)
    taken = after("handle_append_entries_request", server, entries_from(EMPTY, 1, commit=1), 0)
    assert (taken.issued, taken.leader_match, taken.commit_index) == ((), 1, 2)
    outcome = act("append_entries_response", taken, "b", True, 1)
    assert outcome is not None, "what is committed is held"


def test_above_the_base_the_consistency_check_is_as_ever() -> None:
    server = follower(logged(1, 1, 1), 2, 2)
    refused = after("handle_append_entries_request", server, entries_from(logged(1, 1, 2), 2), 0)
    assert (refused.log, refused.leader_match) == (server.log, 0)
    at_base = replace(entries_from(logged(1, 1), 2), prev_log_term=2)
    assert after("handle_append_entries_request", server, at_base, 0).leader_match == 0, "the term at the base is known"
    cut = after("handle_append_entries_request", server, entries_from(logged(1, 1), 2), 0)
    assert cut.log == logged(1, 1, 2)
