"""Exploration of forwarding: the properties hold in every interleaving within bounds, and each breaks in a mutant."""

from __future__ import annotations

from random import Random

import pytest

from model_checks.explore.forwarding import (
    CONSISTENT,
    LEGS,
    SOMETIMES,
    VERIFY,
    WRITE,
    broken_property,
    explore_forwarding,
)
from model_checks.explore.forwarding_mutants import MUTANTS, applied_mutant
from model_checks.explore.forwarding_world import ACTIONS, Bounds, World, initial_world, steps
from model_checks.verdicts import Verdict
from spec import forwarding, forwarding_properties
from spec.forwarding import Mode, Request

SMALL = (Bounds(requests=(WRITE,), calls=2), *VERIFY[1:])


def test_forwarding_keeps_its_promises_in_every_interleaving_within_bounds() -> None:
    result = explore_forwarding(SMALL)
    assert (result.verdict, result.reason, result.figures["never"]) == (Verdict.VALID, "", [])
    assert set(result.figures["actions"]) == ACTIONS
    assert (result.figures["states"], result.figures["depth"]) == (49_986, 22)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_breaks_its_property(name: str) -> None:
    mutant = MUTANTS[name]
    the_property = next(prop for prop in forwarding_properties.PROPERTIES if prop.__name__ == mutant.breaks)
    result = explore_forwarding((LEGS[mutant.leg],), name, (the_property,))
    assert (result.verdict, result.property) == (Verdict.INVALID, mutant.breaks)
    assert result.details.startswith("  1. ")


def test_every_property_is_broken_by_some_mutant() -> None:
    properties = {prop.__name__ for prop in forwarding_properties.PROPERTIES}
    assert {mutant.breaks for mutant in MUTANTS.values()} == properties


def test_a_mutant_is_gone_after_its_exploration_even_if_that_fails() -> None:
    original = forwarding.after_lost_call
    with pytest.raises(RuntimeError), applied_mutant(MUTANTS["retry_write_after_lost_connection"]):
        assert forwarding.after_lost_call is not original
        raise RuntimeError
    assert forwarding.after_lost_call is original


def test_a_search_that_meets_its_limit_is_unknown() -> None:
    result = explore_forwarding(SMALL, states_max=1000)
    assert result.verdict == Verdict.UNKNOWN and "1000 states" in result.reason


def test_a_search_in_which_nothing_of_interest_happens_is_vacuous() -> None:
    result = explore_forwarding((Bounds(requests=()),))
    assert result.verdict == Verdict.UNKNOWN and "vacuous" in result.reason
    assert set(SOMETIMES) - set(result.figures["never"]) == {"two servers believe that they lead"}


def test_beliefs_that_point_in_a_circle_do_not_make_a_request_travel_in_it() -> None:
    result = explore_forwarding((Bounds(requests=(WRITE,), entrances=("a",), calls=2, crashes=0),))
    assert result.verdict != Verdict.INVALID
    assert result.figures["actions"]["refuse_forwarded"] > 0


LARGE = Bounds(
    servers=("a", "b", "d"),
    clients=("c", "e"),
    requests=(
        WRITE,
        CONSISTENT,
        Request("w2", True),
        Request("r2", False, Mode.DEFAULT),
        Request("w3", True),
        Request("r3", False, Mode.STALE),
    ),
    entrances=("a", "b", "c", "e"),
    calls=16,
    crashes=2,
    others=2,
)


RARE = {"believe", "crash_restart", "hold_timeout", "leadership_lost", "dial_failed", "connection_lost_at_callee"}
WALKS = 100


def walk(seed: int, length: int = 120) -> str:
    """A random run far beyond what can be exhausted: an action first, then one of its steps. What it breaks."""
    random, world = Random(seed), initial_world(LARGE)
    for _ in range(length):
        by_action: dict[str, list[World]] = {}
        for label, after in steps(LARGE, world):
            by_action.setdefault(label.partition("(")[0], []).append(after)
        if not by_action:
            break
        names = sorted(by_action)
        world = random.choice(by_action[random.choices(names, [1 if name in RARE else 6 for name in names])[0]])
        if broken := broken_property(LARGE, world, forwarding_properties.PROPERTIES):
            return broken
    return ""


def test_random_walks_beyond_the_bounds_break_no_property() -> None:
    assert {walk(seed) for seed in range(WALKS)} == {""}


@pytest.mark.parametrize(
    "name",
    ["retry_write_after_lost_connection", "forward_what_was_forwarded", "refuse_at_timeout", "read_on_belief"],
)
def test_random_walks_find_mutants(name: str) -> None:
    with applied_mutant(MUTANTS[name]):
        assert any(walk(seed) for seed in range(WALKS))
