"""Exploration of forwarding: the properties hold in every interleaving within bounds, and each breaks in a mutant."""

from __future__ import annotations

import pytest

from model_checks.explore.forwarding import READ, SOMETIMES, WRITE, explore_forwarding
from model_checks.explore.forwarding_mutants import MUTANTS, applied_mutant
from model_checks.explore.forwarding_world import ACTIONS, Bounds
from model_checks.verdicts import Verdict
from spec import forwarding

SMALL = (Bounds(requests=(WRITE,), calls=2), Bounds(requests=(READ,), calls=2, crashes=0))


def test_forwarding_keeps_its_promises_in_every_interleaving_within_bounds() -> None:
    result = explore_forwarding(SMALL)
    assert (result.verdict, result.reason, result.figures["never"]) == (Verdict.VALID, "", [])
    assert set(result.figures["actions"]) == ACTIONS
    assert (result.figures["states"], result.figures["depth"]) == (26_397, 20)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_breaks_its_property(name: str) -> None:
    mutant = MUTANTS[name]
    the_property = next(prop for prop in forwarding.PROPERTIES if prop.__name__ == mutant.breaks)
    result = explore_forwarding(mutant=name, properties=(the_property,))
    assert (result.verdict, result.property) == (Verdict.INVALID, mutant.breaks)
    assert result.details.startswith("  1. ")


def test_every_property_is_broken_by_some_mutant() -> None:
    assert {mutant.breaks for mutant in MUTANTS.values()} == {prop.__name__ for prop in forwarding.PROPERTIES}


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
