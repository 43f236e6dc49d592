"""Exploration: both searches see the same worlds, the reductions lose none, and limits are confessed."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from model_checks.explore import compiled
from model_checks.explore.judge import PROPERTIES, Judge
from model_checks.explore.mutants import MUTANTS
from model_checks.explore.plain import PlainSearch
from model_checks.explore.profiles import LEASED, PROFILES, local_transitions, never_seen, never_taken, run_legs
from model_checks.explore.results import Exploration, Limits
from model_checks.explore.search import Engine, explore
from model_checks.explore.starts import SCRIPTS, STARTS, Script, scripted_steps
from model_checks.verdicts import Verdict
from spec.raft import network
from spec.raft.actions import ACTIONS, initial_server
from spec.raft.bounds import Bounds
from spec.raft.messages import Message
from spec.raft.network import World, initial_world, transition
from spec.raft.properties import is_message
from spec.raft.types import Configuration, Server

CLOCKED = Bounds(servers=2, max_term=1, max_issued=1, election_timeout=2, lease=1, max_time=2)
SMALLER = (Configuration(("s2",)),)
COMPARED = [
    (Bounds(servers=1, max_term=2, max_log=2, max_restarts=1, reads=("r1",)), "initial"),
    (Bounds(servers=2, max_term=2, max_restarts=1), "initial"),
    (Bounds(servers=2, max_term=2, max_issued=1, reads=("r1",)), "initial"),
    (Bounds(max_term=1, max_issued=1, max_log=0), "initial"),
    (Bounds(max_term=2, max_restarts=1), "diverged"),
    (Bounds(servers=2, max_term=1, max_log=0, max_issued=1, pre_vote=True, election_timeout=1, max_time=1), "initial"),
    (replace(CLOCKED, lease_reads=("r1",), max_round=1), "initial"),
    (replace(CLOCKED, max_log=0, transfers=True, steps_down=True, max_restarts=1), "initial"),
    (Bounds(max_term=1, max_log=3, max_issued=1, values=(), configurations=SMALLER), "leader_leaves"),
    (Bounds(max_term=2, max_log=1, max_issued=1, snapshots=True, max_restarts=1), "conflicting"),
]


def counted(result: Exploration) -> dict[str, object]:
    """All that must not depend on how the search is carried out."""
    return {
        "verdict": result.verdict,
        "distinct": result.distinct,
        "generated": result.generated,
        "depth": result.depth,
        "taken": dict(result.taken),
        "seen": {name for name, count in result.witnesses.items() if count},
    }


@pytest.mark.parametrize(("bounds", "start"), COMPARED)
def test_the_fast_searches_see_what_the_plain_one_sees(bounds: Bounds, start: str) -> None:
    world = STARTS[start](bounds)
    slow = explore(bounds, start=world, engine=Engine.PLAIN)
    for engine in (Engine.INTERNED, Engine.COMPILED):
        fast = explore(bounds, start=world, engine=engine)
        assert counted(fast) == counted(slow)
        assert set(fast.local_transitions) == set(slow.local_transitions)
        assert len(fast.transitions) == len(set(fast.transitions))


def test_the_compiled_search_keeps_its_counts_when_its_arrays_grow() -> None:
    """87,220 states: more than its arrays hold at first, and several batches."""
    bounds = Bounds(max_term=4, max_log=2, max_issued=1)
    result = explore(bounds, start=STARTS["figure_8"](bounds), engine=Engine.COMPILED)
    assert (result.distinct, result.generated, result.depth) == (87_220, 582_321, 30)


def test_states_that_do_not_fit_a_word_are_an_error_and_never_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "HISTORY_BITS", 2)
    with pytest.raises(OverflowError, match="interpreted search"):
        explore(Bounds(servers=2, max_term=2, max_restarts=1), engine=Engine.COMPILED)


@pytest.mark.parametrize(
    ("start", "bounds", "distinct", "generated", "depth"),
    [
        ("initial", Bounds(servers=2, max_term=1), 65, 110, 16),
        ("initial", Bounds(servers=2, max_term=2, max_restarts=1), 3_068, 9_456, 26),
        ("initial", Bounds(max_term=1), 10_311, 45_210, 23),
        ("initial", Bounds(max_term=1, max_restarts=1), 40_002, 242_796, 23),
        ("diverged", Bounds(max_term=2, max_restarts=1), 2_635, 13_498, 17),
        ("figure_8", Bounds(max_term=4, max_log=2, max_issued=1), 87_220, 582_321, 30),
        ("orphaned", Bounds(max_term=3, max_issued=1), 15_625, 63_048, 24),
        ("initial", Bounds(servers=2, max_term=2, max_log=0, max_issued=1, pre_vote=True), 5_872, 29_962, 27),
        ("initial", replace(CLOCKED, max_term=2, max_log=0, pre_vote=True, transfers=True), 14_524, 77_220, 32),
        ("leader_leaves", Bounds(max_term=2, max_log=2, max_issued=1, values=()), 19_708, 93_094, 27),
        ("two_snapshots", Bounds(max_term=1, max_log=2, max_issued=1, snapshots=True), 3_100, 11_624, 18),
        ("leased", LEASED, 7_230, 37_323, 26),
    ],
)
def test_pinned_counts(start: str, bounds: Bounds, distinct: int, generated: int, depth: int) -> None:
    """A change of these figures is a change of the spec, of a bound's meaning, or a mistake: know which before
    editing them.
    """
    result = explore(bounds, start=STARTS[start](bounds))
    assert (result.verdict, result.distinct, result.generated, result.depth) == (
        Verdict.VALID,
        distinct,
        generated,
        depth,
    )


def seen_without_messages(bounds: Bounds, *, reduced: bool) -> set[tuple[object, ...]]:
    """Every combination of server states and history that a plain search reaches."""
    search = PlainSearch(ACTIONS, bounds, Judge(bounds.constants()), Limits(), reduced=reduced)
    result = search.run("initial", initial_world(bounds.constants()))
    assert result.verdict is Verdict.VALID
    return {(world.servers, world.history) for world in search.worlds}


REDUCED = [
    Bounds(servers=2, max_term=1, max_log=0),
    Bounds(servers=2, max_term=1, max_log=0, max_restarts=1),
    Bounds(servers=1, max_term=2, max_log=1, max_restarts=1, reads=("r1",)),
    Bounds(
        servers=1, max_term=1, max_log=2, snapshots=True, lease_reads=("r1",), election_timeout=1, lease=0, max_time=1
    ),
    replace(CLOCKED, max_log=0, max_time=1, election_timeout=1, lease=0, steps_down=True),
]


@pytest.mark.parametrize("bounds", REDUCED)
def test_sending_at_once_and_forgetting_dead_messages_lose_no_state_of_servers_and_history(bounds: Bounds) -> None:
    assert seen_without_messages(bounds, reduced=True) == seen_without_messages(bounds, reduced=False)


def test_mutant_that_forgets_live_messages_is_seen_to_lose_states(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_dead(c: object, servers: tuple[Server, ...], m: Message) -> bool:
        return m.dest == "s1" and any(s.durable.term >= m.term for s in servers)

    bounds = REDUCED[0]
    everything = seen_without_messages(bounds, reduced=False)
    monkeypatch.setattr(network, "dead", too_dead)
    assert seen_without_messages(bounds, reduced=True) < everything


@pytest.mark.parametrize("engine", list(Engine))
def test_reaching_a_limit_is_unknown_and_says_which(engine: Engine) -> None:
    result = explore(Bounds(max_term=1), limits=Limits(states=100), engine=engine)
    assert result.verdict is Verdict.UNKNOWN
    assert "states" in result.incomplete
    result = explore(Bounds(max_term=1), limits=Limits(seconds=0), engine=engine)
    assert result.verdict is Verdict.UNKNOWN
    assert "seconds" in result.incomplete


def test_the_small_profile_takes_every_action_and_witnesses_every_sometimes_property() -> None:
    results = run_legs(PROFILES["small"])
    assert {result.verdict for result in results} == {Verdict.VALID}
    assert never_taken(local_transitions(results)) == []
    assert never_seen(results) == []


def test_within_narrow_bounds_vacuity_is_reported() -> None:
    results = [explore(Bounds(servers=2, max_term=0))]
    taken = set(ACTIONS).difference(never_taken(local_transitions(results)))
    assert taken == {
        "vote_response",
        "append_entries_response",
        "handle_request_vote_response",
        "handle_append_entries_response",
    }, "in term 0 servers can only refuse what nobody asked for"
    assert "a leader is elected" in never_seen(results)


def test_every_larger_profile_holds_the_smaller_one() -> None:
    assert set(PROFILES["small"]) < set(PROFILES["verify"]) < set(PROFILES["deep"])


def test_a_property_must_exist_to_be_watched() -> None:
    with pytest.raises(ValueError, match="no property is named 'Liveness'"):
        explore(Bounds(), properties=["Liveness"])


SHORTEST = {"elected_without_quorum": 6, "no_prev_check": 3, "votes_survive_election": 8}


@pytest.mark.parametrize("name", SHORTEST)
def test_all_searches_find_shortest_counterexamples_of_one_length(name: str) -> None:
    mutant = MUTANTS[name]
    found = [
        explore(
            mutant.bounds,
            protocol=mutant.protocol,
            start=STARTS[mutant.start](mutant.bounds),
            properties=[mutant.breaks],
            engine=engine,
        ).counterexample
        for engine in Engine
    ]
    assert {each and (each.broken, len(each.steps)) for each in found} == {(mutant.breaks, SHORTEST[name])}


def test_a_start_that_is_itself_broken_is_a_counterexample_without_steps() -> None:
    bounds = Bounds()
    world = initial_world(bounds.constants())
    first = replace(world.servers[0], commit_index=1)
    broken = World((first, *world.servers[1:]), world.messages, world.history)
    for engine in Engine:
        counterexample = explore(bounds, start=broken, engine=engine).counterexample
        assert counterexample is not None
        assert (counterexample.broken, counterexample.steps) == ("Type Invariant", ())


def test_every_property_is_named_once() -> None:
    assert len(set(PROPERTIES)) == len(PROPERTIES) >= 16


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_scripted_start_is_reached_by_steps_of_the_spec(name: str) -> None:
    """Its steps, replayed from the initial world, lead to it; each message received was sent before."""
    c, taken = scripted_steps(name)
    states, sent = dict.fromkeys(c.servers, initial_server()), set[Message]()
    for step in taken:
        assert states[step.server] == step.before
        assert sent.issuperset(m for m in step.arguments if is_message(m))
        assert transition(ACTIONS, c, step.server, step.before, step.action, *step.arguments) == step
        states[step.server] = step.after
        sent.update(step.outcome.sent)
    world = SCRIPTS[name]().world
    assert tuple(states.values()) == world.servers
    assert world.messages <= sent


def test_a_script_refuses_a_step_that_is_not_enabled() -> None:
    with pytest.raises(ValueError, match=r"become_leader\(\) is not enabled in server s1"):
        Script(Bounds()).step("s1", "become_leader")


def test_a_start_of_another_cluster_is_refused() -> None:
    with pytest.raises(ValueError, match="start own_term is one of"):
        STARTS["own_term"](Bounds())
