"""Each property holds of good states and is broken by a bad one, made by hand: no protocol reaches it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from spec.raft import properties
from spec.raft.actions import initial_server, restarted
from spec.raft.log import EMPTY, Log, log_of
from spec.raft.messages import (
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
    Configuration,
    Constants,
    Elected,
    Entry,
    Fact,
    Outcome,
    Point,
    ReadAnswered,
    ReadConfirmed,
    Restored,
    Role,
    Server,
    Write,
)

C = Constants(servers=("a", "b", "c"))
ONE, TWO = log_of([Entry(1, "x")]), log_of([Entry(2, "x")])
ONE_TWO = ONE.append(Entry(2, "x"))
SHORT = Point(1, None, ONE, 1, 1)


def server(term: int = 1, voted_for: str | None = None, log: Log = EMPTY, **fields: object) -> Server:
    return replace(restarted(Point(term, voted_for, log)), **fields)


def leader(**fields: object) -> Server:
    nothing = (("b", 0), ("c", 0))
    values: dict[str, Any] = {"role": Role.LEADER, "leader_id": "a", "match_index": nothing, "acked_round": nothing}
    return server(1, "a", **{**values, **fields})


def step(before: Server, after: Server, action: str = "persist", *arguments: object) -> Transition:
    return Transition("a", action, arguments, before, Outcome(after))


@pytest.mark.parametrize("good", [initial_server(), server(log=ONE, commit_index=1, leader_match=1), leader()])
def test_invariants_hold_of_ordinary_states(good: Server) -> None:
    assert all(holds(C, "a", good) for holds in properties.INVARIANTS.values())


@pytest.mark.parametrize(
    "bad",
    [
        server(commit_index=1),
        server(log=ONE, last_applied=1),
        server(leader_match=1),
        server(votes=("b",)),
        server(role=Role.CANDIDATE, votes=("c", "b")),
        server(role=Role.CANDIDATE, votes=("a",)),
        server(match_index=(("b", 0), ("c", 0))),
        leader(match_index=(("b", 0),)),
        leader(acked_round=()),
        leader(leader_id="b"),
        server(leader_id="a"),
        server(term=2, issued=(Write(Point(1, None, EMPTY)),)),
        server(durable=Point(1, None, ONE, 0, 1)),
        server(durable=Point(1, None, ONE, 2, 0)),
        server(log=ONE, issued=(Write(Point(1, None, ONE, 0, 1)),)),
        server(pre_votes=("a",)),
        server(pre_votes=("c", "b")),
        server(urged_by=2),
        server(transferring=True),
        server(round_starts=((1, 0),)),
        leader(round_starts=((1, 0),)),
        leader(round=2, round_starts=((2, 0), (1, 0))),
        leader(pre_votes=("b",)),
        leader(lease_ended=True),
        leader(durable=Point(1, "a", log_of([Entry(1, "", Configuration(("a", "b")))]))),
    ],
)
def test_the_type_invariant_knows_every_fields_range(bad: Server) -> None:
    assert not properties.type_invariant(C, "a", bad)


def test_nobody_acknowledges_what_was_not_sent() -> None:
    assert not properties.acknowledged_was_sent(C, "a", leader(match_index=(("b", 1), ("c", 0))))
    assert not properties.acknowledged_was_sent(C, "a", leader(acked_round=(("b", 0), ("c", 1))))


def test_a_leaders_vote_for_itself_is_on_disk() -> None:
    vote = Write(Point(1, "a", EMPTY))
    assert not properties.votes_for_itself(C, "a", leader(durable=Point(0, None, EMPTY), issued=(vote,)))
    assert not properties.votes_for_itself(C, "a", server(1, "b", role=Role.CANDIDATE))
    waiting = server(0, issued=(vote,), role=Role.CANDIDATE)
    assert properties.votes_for_itself(C, "a", waiting)


def test_what_is_applied_is_on_disk() -> None:
    undurable = server(issued=(Write(Point(1, None, ONE)),), commit_index=1, last_applied=1)
    assert not properties.applied_is_on_disk(C, "a", undurable)
    assert properties.applied_is_on_disk(C, "a", replace(undurable, last_applied=0))


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("Leader Append-Only", step(leader(durable=Point(1, "a", ONE)), leader())),
        ("Durable Promises", step(server(term=2), server(term=1))),
        ("Durable Promises", step(server(1, "b"), server(1, "c"))),
        ("Durable Promises", step(server(1, "b"), server(1))),
        ("Durable Promises", step(server(log=ONE, leader_match=1), server())),
        ("Monotone Indexes", step(server(log=ONE, commit_index=1), server(log=ONE))),
        ("Monotone Indexes", step(server(log=ONE, commit_index=1), server(log=ONE, commit_index=1), "crash_restart")),
        ("Monotone Snapshots", step(server(log=ONE, durable=SHORT), server(log=ONE))),
        (
            "Monotone Snapshots",
            step(server(durable=SHORT), server(durable=SHORT, issued=(Write(Point(1, None, ONE)),))),
        ),
        ("Monotone Snapshots", step(server(durable=SHORT), server(durable=replace(SHORT, base=0)), "crash_restart")),
        ("Stale Messages", step(server(2), server(2, "b"), "handle", RequestVoteRequest(1, "b", "a", 0, 0))),
        ("Stale Messages", step(server(2), server(2, lease_ended=True), "handle", LeaseEnded(1, "b", "a"))),
    ],
)
def test_a_step_that_takes_something_back_is_seen(name: str, bad: Transition) -> None:
    assert not properties.STEP_PROPERTIES[name](bad)
    assert properties.STEP_PROPERTIES[name](step(bad.before, bad.before))


@pytest.mark.parametrize(
    ("m", "good", "bad"),
    [
        (RequestVoteRequest(1, "a", "b", 0, 0), server(1, "a"), server(1)),
        (RequestVoteResponse(1, "a", "b", True), server(1, "b"), server(1, "c")),
        (RequestVoteResponse(1, "a", "b", False), server(1), server(0, issued=(Write(Point(1, None, EMPTY)),))),
        (AppendEntriesResponse(1, "a", "b", True, 1, 0), server(log=ONE), server(issued=(Write(Point(1, None, ONE)),))),
        (
            AppendEntriesResponse(1, "a", "b", True, 1, 0),
            server(log=ONE),
            server(log=TWO, issued=(Write(Point(1, None, ONE)),)),
        ),
        (PreVoteRequest(2, "a", "b", 1, 1), server(log=ONE), server(log=EMPTY)),
        (PreVoteRequest(2, "a", "b", 1, 1), server(log=ONE), server(2, log=ONE)),
        (PreVoteResponse(2, "a", "b", True), server(1), server(2)),
        (PreVoteResponse(1, "a", "b", False), server(1), server(0)),
        (InstallSnapshotRequest(1, "a", "b", 1, 1, ONE, 0), server(durable=SHORT), server(log=ONE)),
        (
            InstallSnapshotRequest(1, "a", "b", 1, 1, TWO, 0),
            server(durable=replace(SHORT, log=TWO)),
            server(durable=SHORT),
        ),
        (TimeoutNow(1, "a", "b"), leader(), server(2)),
        (LeaseEnded(1, "a", "b"), leader(), server(1)),
    ],
)
def test_a_message_says_what_the_disk_holds(m: Message, good: Server, bad: Server) -> None:
    assert properties.said_by_disk(good, m)
    assert not properties.said_by_disk(bad, m)


PAST = History(elected=(Elected(2, "a", ONE),), committed=(Committed(2, 1, ONE),), reads=(("r", 1),))


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("Election Safety", Elected(3, "b", ONE), Elected(2, "b", ONE)),
        ("Leader Completeness", Elected(3, "b", ONE_TWO), Elected(3, "b", TWO)),
        ("Leader Completeness", Committed(1, 1, ONE), Committed(1, 1, TWO)),
        ("State Machine Safety", Committed(3, 2, ONE_TWO), Committed(3, 1, TWO)),
        ("State Machine Safety", Applied("b", 1, Entry(1, "x")), Applied("b", 1, Entry(2, "x"))),
        ("State Machine Safety", Applied("b", 1, Entry(1, "x")), Applied("b", 2, Entry(1, "x"))),
        ("State Machine Safety", Restored("b", 1, ONE), Restored("b", 1, TWO)),
        ("State Machine Safety", Restored("b", 1, ONE), Restored("b", 2, ONE_TWO)),
        ("Read Linearizability", ReadConfirmed("r", 2, 1), ReadConfirmed("r", 2, 0)),
        ("Read Linearizability", ReadConfirmed("by lease", 2, 1), ReadConfirmed("by lease", 2, 0)),
        ("Read Linearizability", ReadAnswered("r", 1, 1), ReadAnswered("r", 1, 0)),
    ],
)
def test_a_fact_is_judged_against_the_past(name: str, good: Fact, bad: Fact) -> None:
    holds = properties.FACT_PROPERTIES[name]
    assert holds(C, PAST, good)
    assert not holds(C, PAST, bad)


def test_log_matching_compares_entries_of_one_index_and_term() -> None:
    other = TWO.append(Entry(2, "x"))
    assert properties.log_matching(server(log=ONE), server(log=TWO))
    assert not properties.log_matching(server(log=ONE_TWO), server(log=other)), "index 2 is of term 2 in both"
    hidden = server(log=other, issued=(Write(Point(2, None, EMPTY)),))
    assert not properties.log_matching(server(log=ONE_TWO), hidden), "disks count too"


def test_what_a_server_believes_committed_is_committed() -> None:
    assert properties.commit_index_is_covered(PAST, server(log=ONE_TWO, commit_index=1))
    assert not properties.commit_index_is_covered(PAST, server(log=ONE_TWO, commit_index=2))
    assert not properties.commit_index_is_covered(PAST, server(log=TWO, commit_index=1))


def test_what_a_snapshot_covers_is_committed() -> None:
    assert properties.snapshot_is_committed(PAST, server(durable=SHORT))
    assert not properties.snapshot_is_committed(PAST, server(durable=replace(SHORT, log=TWO)))
    assert properties.snapshot_is_committed(PAST, server(log=TWO)), "without a snapshot there is nothing to cover"


def test_only_the_latest_configuration_of_a_log_may_be_uncommitted() -> None:
    ab, abc = Entry(2, "", Configuration(("a", "b"))), Entry(2, "", Configuration(("a", "b", "c")))
    committed = ONE.append(ab)
    past = History(committed=(Committed(2, 2, committed),))
    assert properties.one_configuration_is_uncommitted(PAST, server(log=committed))
    assert properties.one_configuration_is_uncommitted(past, server(log=committed.append(abc)))
    assert not properties.one_configuration_is_uncommitted(PAST, server(log=committed.append(abc)))
    hidden = server(log=committed.append(abc), issued=(Write(Point(2, None, ONE)),))
    assert not properties.one_configuration_is_uncommitted(PAST, hidden), "disks count too"
