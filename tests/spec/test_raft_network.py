"""The network: what history remembers, what may be forgotten, and what bounds cut off."""

from __future__ import annotations

from typing import get_args

import pytest
from msgspec.structs import replace

from spec.raft.actions import ACTIONS, CLOCKED, initial_server, restarted
from spec.raft.bounds import Bounds
from spec.raft.log import EMPTY, log_of
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
from spec.raft.network import (
    History,
    Transition,
    dead,
    feature_choices,
    handler,
    initial_world,
    internal_steps,
    remember,
    send_choices,
    sends,
    settled,
    steps,
    take,
    takes_clock,
    with_commitment,
)
from spec.raft.types import (
    Committed,
    Configuration,
    Constants,
    Elected,
    Entry,
    Fact,
    Outcome,
    Point,
    ReadStarted,
)

C = Bounds().constants()
ONE = log_of([Entry(1, "x")])
ONE_TWO = ONE.append(Entry(2, "x"))


def step(action: str, *facts: Fact) -> Transition:
    return Transition("s1", action, (), initial_server(), Outcome(initial_server(), facts=facts))


def history_after(*taken: Transition, bounds: Bounds | None = None) -> History | None:
    history: History | None = History()
    for each in taken:
        assert history is not None
        history = remember(history, each, bounds or Bounds(max_restarts=1))
    return history


def test_history_remembers_elections_and_commitments_in_one_order() -> None:
    first, second = step("x", Elected(1, "s1", EMPTY)), step("x", Elected(2, "s2", ONE))
    assert history_after(first, second) == history_after(second, first)


def test_a_commitment_that_another_implies_is_not_remembered() -> None:
    longer = Committed(2, 2, ONE_TWO)
    assert with_commitment((longer,), Committed(2, 1, ONE)) == (longer,)
    assert with_commitment((Committed(2, 1, ONE),), longer) == (longer,)
    older = Committed(1, 1, ONE)
    assert with_commitment((longer,), older) == (older, longer), "it binds the leaders of term 2 as well"


def test_a_read_remembers_what_was_committed_when_it_arrived() -> None:
    history = history_after(step("x", Committed(1, 1, ONE)), step("x", ReadStarted("r", 1, 0)))
    assert history is not None
    assert history.reads == (("r", 1),)


def test_bounds_over_all_servers_are_kept_by_the_history() -> None:
    assert history_after(step("crash_restart"), step("crash_restart")) is None
    assert history_after(step("x", ReadStarted("r", 1, 0)), step("x", ReadStarted("r", 1, 0))) is None


def test_a_message_is_dead_when_its_destinations_disk_has_passed_its_term() -> None:
    world = initial_world(C)
    m = RequestVoteRequest(1, "s2", "s1", 0, 0)
    in_memory = take(C, Bounds(), world, next(iter(internal_steps(ACTIONS, C, Bounds(), "s1", world.servers[0]))))
    assert in_memory is not None
    second = replace(in_memory.servers[0], durable=replace(in_memory.servers[0].durable, term=2))
    assert not dead(C, in_memory.servers, m), "a crash may bring the old term back"
    assert dead(C, (second, *world.servers[1:]), m)


def test_a_settled_world_holds_all_that_its_servers_may_send() -> None:
    world = initial_world(C)
    for i in C.servers:
        world = settled(ACTIONS, C, world, i)
    refusals = {m for m in world.messages if isinstance(m, RequestVoteResponse)}
    assert len(refusals) == 6
    assert all(not m.vote_granted for m in refusals)
    again = [
        m
        for i, s in zip(C.servers, world.servers, strict=True)
        for each in sends(ACTIONS, C, i, s)
        for m in each.outcome.sent
    ]
    assert world.messages == frozenset(again)


@pytest.mark.parametrize(
    ("bounds", "enabled"),
    [(Bounds(max_term=0), 0), (Bounds(max_term=1), 3), (Bounds(servers=2), 2)],
)
def test_bounds_cut_off_steps_and_nothing_else(bounds: Bounds, enabled: int) -> None:
    c = bounds.constants()
    assert [each.action for each in steps(ACTIONS, c, bounds, initial_world(c))] == ["timeout"] * enabled


def test_a_slow_disk_bounds_the_writes_under_way() -> None:
    world = initial_world(C)
    (first,) = internal_steps(ACTIONS, C, Bounds(max_issued=1), "s1", world.servers[0])
    after = {each.action for each in internal_steps(ACTIONS, C, Bounds(max_issued=1), "s1", first.after)}
    assert after == {"persist"}
    assert "timeout" in {each.action for each in internal_steps(ACTIONS, C, Bounds(max_issued=2), "s1", first.after)}


# ----------------------------------------------------------------------------------------------- time and the features


def test_time_passes_for_all_servers_at_once_and_changes_none() -> None:
    bounds = Bounds(max_term=0, max_time=1)
    world = initial_world(C)
    (passing,) = steps(ACTIONS, C, bounds, world)
    later = take(C, bounds, world, passing)
    assert later == replace(world, now=1)
    assert later is not None
    assert list(steps(ACTIONS, C, bounds, later)) == []
    assert take(C, bounds, later, passing) is None


def test_steps_that_read_the_clock_are_shown_what_it_shows() -> None:
    bounds = Bounds(servers=1, max_term=1, election_timeout=2, max_time=9)
    c = bounds.constants()
    early, late = (replace(initial_world(c), now=now) for now in (1, 2))
    assert [each.action for each in steps(ACTIONS, c, bounds, early)] == ["advance_clock"]
    assert [each.arguments for each in steps(ACTIONS, c, bounds, late)] == [(2,), (3,)]


def test_the_actions_that_read_the_clock_are_those_that_say_so() -> None:
    assert {name for name, action in ACTIONS.items() if takes_clock(action)} == CLOCKED


def test_every_message_has_a_handler_among_the_actions() -> None:
    messages: list[Message] = [
        PreVoteRequest(1, "s1", "s2", 0, 0),
        PreVoteResponse(1, "s1", "s2", True),
        RequestVoteRequest(1, "s1", "s2", 0, 0),
        RequestVoteResponse(1, "s1", "s2", True),
        AppendEntriesRequest(1, "s1", "s2", 0, 0, (), 0, 0),
        AppendEntriesResponse(1, "s1", "s2", True, 0, 0),
        InstallSnapshotRequest(1, "s1", "s2", 1, 1, ONE, 0),
        TimeoutNow(1, "s1", "s2"),
        LeaseEnded(1, "s1", "s2"),
    ]
    assert {type(m) for m in messages} == set(get_args(Message))
    handlers = {handler(m) for m in messages}
    assert handlers == {name for name in ACTIONS if name.startswith("handle_")}


def test_features_are_off_unless_the_bounds_turn_them_on() -> None:
    assert list(feature_choices(Bounds(), initial_server(), 0)) == []
    on = Bounds(snapshots=True, max_round=1, lease_reads=("r",), steps_down=True, transfers=True)
    offered = {choice[0] for choice in feature_choices(on, replace(initial_server(), durable=Point(1, None, ONE)), 0)}
    assert offered == {
        "take_snapshot",
        "restore_snapshot",
        "begin_round",
        "lease_read",
        "step_down",
        "transfer_leadership",
    }
    assert Bounds().constants() == Constants(("s1", "s2", "s3"))
    assert Bounds(servers=4, genesis=3).constants().genesis.voters == ("s1", "s2", "s3")


def test_campaigns_go_to_voters_logs_to_members_and_answers_to_anybody() -> None:
    log = EMPTY.append(Entry(1, "", Configuration(("s1", "s2"), ("s3",))))
    c = Bounds(servers=4).constants()
    s = restarted(Point(1, "s1", log))
    asked: dict[str, set[object]] = {}
    for action, to, *_ in send_choices(replace(c, pre_vote=True), "s1", s):
        asked.setdefault(str(action), set()).add(to)
    assert asked["request_vote"] == asked["request_pre_vote"] == {"s2"}
    assert asked["append_entries"] == {"s2", "s3"}
    assert asked["vote_response"] == {"s2", "s3", "s4"}
