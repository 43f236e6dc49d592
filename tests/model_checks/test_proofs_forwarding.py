"""The proof of forwarding: acknowledged means committed, never applied twice, `consistent` reads are linearizable."""

from __future__ import annotations

import pytest

from model_checks.proofs import bounded, cti, forwarding_runs, sanity
from model_checks.proofs import selection as selections
from model_checks.proofs.algebra import Symbols, Value
from model_checks.proofs.finite import FiniteAlgebra
from model_checks.proofs.forwarding_lemmas import FORWARDING
from model_checks.proofs.forwarding_signature import HARMLESS, MUTANTS
from model_checks.proofs.obligations import obligations
from model_checks.proofs.prover import Portfolio, prove
from model_checks.proofs.report import status, verdict
from model_checks.proofs.run import prove_systems
from model_checks.proofs.systems import named
from model_checks.verdicts import Verdict
from spec import forwarding_properties

BY_KEY = {obligation.key: obligation for obligation in obligations(FORWARDING)}

BROKEN = {
    "retry_after_loss": "connection_lost/token_free",
    "retry_after_unknown": "handle_reply/token_free",
    "duplicate_delivery": "handle_call/token_free",
    "acknowledged_uncommitted": "acknowledge/proof_sane",
    "timeout_refuses": "hold_timeout/token_entry",
    "lost_leadership_refuses": "leadership_lost/token_entry",
    "register_commits_twice": "commit/commits_final",
    "answered_before_applied": "answer_read/read_bound",
    "unconfirmed_read": "confirm_read/read_bound",
    "stale_for_any": "stale_read/read_bound",
    "lease_for_consistent": "lease_read/read_bound",
}
"""For each mutant an obligation that the protocol satisfies and the mutant does not."""


@pytest.fixture(scope="module")
def portfolio() -> Portfolio:
    return Portfolio(selections.load(FORWARDING, named("forwarding").selection), system="forwarding")


def test_every_theorem_holds_for_any_number_of_agents_requests_and_calls(portfolio: Portfolio) -> None:
    (findings,) = prove_systems([portfolio], jobs=2).systems
    assert findings.unproved == []
    assert findings.witness
    assert findings.unreachable == ()
    assert set(status(findings).values()) == {"UNBOUNDED"}
    assert verdict(findings) == (Verdict.VALID, "")


def test_the_theorems_are_the_readable_specs_safety_properties() -> None:
    """How often a request is passed on is no matter of safety (`sent_on_at_most_twice`)."""
    readable = {prop.__name__ for prop in forwarding_properties.PROPERTIES}
    assert readable - {theorem.name for theorem in FORWARDING.theorems} == {"sent_on_at_most_twice"}


def test_what_the_register_promises_is_proved_of_raft() -> None:
    for theorem in named("forwarding").assumed:
        system, _, name = theorem.partition("/")
        assert name in {theorem.name for theorem in named(system).system.theorems}


def test_every_mutant_is_examined() -> None:
    assert set(BROKEN) == set(MUTANTS) == set(forwarding_runs.VIOLATIONS)


@pytest.mark.parametrize("mutant", sorted(BROKEN))
def test_a_weakened_forwarding_is_not_proved(mutant: str, portfolio: Portfolio) -> None:
    obligation = BY_KEY[BROKEN[mutant]]
    assert prove(FORWARDING, obligation, portfolio).proved
    weakened = Portfolio(portfolio.selection, mutant=mutant, seconds_max=0.5, system="forwarding")
    assert not prove(FORWARDING, obligation, weakened).proved
    found = cti.find(FORWARDING, obligation, mutant, forwarding_runs.SIZES)
    assert found is not None
    assert found.text.startswith(obligation.subject)
    assert cti.find(FORWARDING, obligation, None, forwarding_runs.SIZES) is None


@pytest.mark.parametrize("mutant", sorted(forwarding_runs.VIOLATIONS))
def test_a_weakened_forwarding_breaks_its_promise_from_the_initial_state(mutant: str) -> None:
    scenario = forwarding_runs.VIOLATIONS[mutant]
    run = bounded.search(FORWARDING, scenario, mutant)
    assert run is not None
    assert len(run.lines) == len(scenario.actions)
    assert bounded.search(FORWARDING, scenario) is None, "the protocol itself must keep its promise"


def test_a_request_that_travels_in_a_circle_is_no_less_safe(portfolio: Portfolio) -> None:
    assert set(HARMLESS) == {"forward_again"}
    circling = Portfolio(portfolio.selection, mutant="forward_again", system="forwarding")
    (findings,) = prove_systems([circling], jobs=1, only="dial/").systems
    assert findings.proofs
    assert findings.unproved == []


def test_a_write_that_was_refused_is_tried_again_and_a_later_read_reflects_it() -> None:
    run = named("forwarding").possible()
    assert run is not None
    steps = [line.split()[1].partition("(")[0] for line in run.lines]
    assert steps.index("handle_refusal") < steps.index("append") < steps.index("answer_read")


def test_a_read_that_nobody_answers_is_no_witness() -> None:
    shorter = bounded.Scenario(forwarding_runs.WITNESS.actions[:-1], forwarding_runs.WITNESS.sizes)
    assert bounded.search(FORWARDING, shorter, ending=forwarding_runs.witnessed) is None


def test_the_lemmas_allow_every_action_after_an_acknowledged_write() -> None:
    sizes, event = forwarding_runs.SIZES, forwarding_runs.eventful
    assert sanity.unreachable(FORWARDING, sizes, event=event) == ()

    def everything_is_asked(a: FiniteAlgebra, s: Symbols) -> Value:
        return a.conj(*(s.asked(q) for q in range(sizes.requests)))

    assert sanity.unreachable(FORWARDING, sizes, everything_is_asked, event) == ("accept",)


@pytest.mark.parametrize("lemma", [lemma.name for lemma in FORWARDING.lemmas])
def test_every_lemma_is_needed(lemma: str, portfolio: Portfolio) -> None:
    assert sanity.still_needed(FORWARDING, portfolio.selection.needed_by[lemma], lemma, forwarding_runs.SIZES)
