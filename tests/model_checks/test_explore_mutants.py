"""Every broken protocol is found out, by the theorem that it breaks; every property has a broken protocol that it
finds out.
"""

from __future__ import annotations

import pytest

from model_checks.explore.judge import PROPERTIES, Judge
from model_checks.explore.mutant import Mutant
from model_checks.explore.mutants import MUTANTS
from model_checks.explore.paths import describe, with_sends
from model_checks.explore.results import Counterexample, Limits
from model_checks.explore.search import explore
from model_checks.explore.starts import STARTS
from model_checks.verdicts import Verdict
from spec.raft.actions import ACTIONS
from spec.raft.network import ADVANCE_CLOCK, History, remember, transition
from spec.raft.properties import is_message

FOUND = [(name, broken) for name, mutant in MUTANTS.items() for broken in (mutant.breaks, *mutant.also)]


def counterexample_of(mutant: Mutant, broken: str) -> Counterexample:
    result = explore(
        mutant.bounds,
        protocol=mutant.protocol,
        start=STARTS[mutant.start](mutant.bounds),
        start_name=mutant.start,
        properties=[broken],
    )
    assert result.verdict is Verdict.INVALID
    assert result.counterexample is not None
    return result.counterexample


def assert_is_a_behaviour(found: Counterexample, mutant: Mutant) -> History:
    """Each step is enabled where the path takes it, and each message received was sent before; returns the last
    history.
    """
    c = mutant.bounds.constants()
    states = dict(zip(c.servers, found.start.servers, strict=True))
    messages, history = set(found.start.messages), found.start.history
    for step in with_sends(found, mutant.protocol, c):
        assert messages.issuperset(m for m in step.arguments if is_message(m))
        if step.action == ADVANCE_CLOCK:
            continue
        again = transition(mutant.protocol, c, step.server, states[step.server], step.action, *step.arguments)
        assert again == step
        messages.update(step.outcome.sent)
        states[step.server] = step.after
        if step is not found.steps[-1]:
            after = remember(history, step, mutant.bounds)
            assert after is not None
            history = after
    return history


@pytest.mark.parametrize(("name", "broken"), FOUND)
def test_a_broken_protocol_is_found_out_by_a_path_that_it_can_take(name: str, broken: str) -> None:
    mutant = MUTANTS[name]
    found = counterexample_of(mutant, broken)
    assert found.broken == broken
    history = assert_is_a_behaviour(found, mutant)
    judge = Judge(mutant.bounds.constants(), [broken])
    last = found.steps[-1]
    if last.outcome.facts and judge.facts(history, last):
        assert judge.facts(history, last) == broken
    text = describe(found, mutant.protocol, mutant.bounds.constants())
    assert text.endswith(f"broken: {broken}")
    assert f"  {last.server}  {last.action}" in text


@pytest.mark.parametrize("name", MUTANTS)
def test_the_unbroken_protocol_holds_there(name: str) -> None:
    mutant = MUTANTS[name]
    start = STARTS[mutant.start](mutant.bounds)
    assert explore(mutant.bounds, start=start, limits=Limits(states=10_000)).counterexample is None


def test_every_property_has_a_mutant_that_it_finds_out() -> None:
    assert set(PROPERTIES) == {broken for _, broken in FOUND}


def test_mutants_replace_actions_that_the_spec_has_and_say_what_they_do() -> None:
    for mutant in MUTANTS.values():
        assert set(mutant.protocol) == set(ACTIONS)
        assert mutant.protocol != ACTIONS


def test_a_mutant_of_an_action_that_is_gone_is_an_error() -> None:
    with pytest.raises(AssertionError, match="no action"):
        _ = Mutant(replaces={"gone": ACTIONS["timeout"]}, breaks="", bounds=MUTANTS["two_votes"].bounds).protocol
