"""The proof of Raft's relational model: everything is unsatisfiable, and each rule of the protocol is needed for it."""

from __future__ import annotations

import pytest
import z3

from model_checks.proofs import bounded, cti, majority, sanity, signature, unbounded
from model_checks.proofs import selection as selections
from model_checks.proofs.algebra import Algebra, Sort, Symbols, Value
from model_checks.proofs.finite import FiniteAlgebra, Sizes
from model_checks.proofs.obligations import Kind, Obligation, obligations
from model_checks.proofs.prover import Portfolio, prove
from model_checks.proofs.reads import RAFT
from model_checks.proofs.report import status, verdict
from model_checks.proofs.run import prove_systems
from model_checks.proofs.systems import named
from model_checks.verdicts import Verdict

BY_KEY = {obligation.key: obligation for obligation in obligations(RAFT)}

BROKEN = {
    "no_quorum": "lemmas/commit_later",
    "two_votes": "grant_vote/vote_unique",
    "no_up_to_date_check": "grant_vote/candidate_holds",
    "no_prev_check": "recv_append_noconflict/log_prefix",
    "old_term_commit": "advance_commit/commit_acknowledged",
    "ack_before_durable": "append_own/acker",
    "read_without_own_commit": "begin_read/seen_bound",
    "read_without_term_check": "confirm_leadership/seen_unheard",
}
"""For each mutant an obligation that the protocol satisfies and the mutant does not."""


@pytest.fixture(scope="module")
def portfolio() -> Portfolio:
    return Portfolio(selections.load(RAFT, named("static").selection))


@pytest.mark.timeout(300)
def test_every_theorem_holds_for_any_number_of_servers_terms_and_indexes(portfolio: Portfolio) -> None:
    (findings,) = prove_systems([portfolio], jobs=2).systems
    assert findings.unproved == []
    assert set(status(findings).values()) == {"UNBOUNDED"}
    assert verdict(findings) == (Verdict.VALID, "")


def test_every_mutant_is_examined() -> None:
    assert set(BROKEN) == set(signature.MUTANTS) == set(bounded.VIOLATIONS)


@pytest.mark.parametrize("mutant", sorted(BROKEN))
def test_a_weakened_protocol_is_not_proved(mutant: str, portfolio: Portfolio) -> None:
    """What the prover says of the obligation is UNKNOWN at best; the finite backend knows a counterexample."""
    obligation = BY_KEY[BROKEN[mutant]]
    assert prove(RAFT, obligation, portfolio).proved
    weakened = Portfolio(portfolio.selection, mutant=mutant, seconds_max=1.0)
    assert not prove(RAFT, obligation, weakened).proved
    found = cti.find(RAFT, obligation, mutant)
    assert found is not None
    assert found.text.startswith(obligation.subject)
    assert cti.find(RAFT, obligation) is None


@pytest.mark.parametrize("mutant", sorted(bounded.VIOLATIONS))
def test_a_weakened_protocol_breaks_a_theorem_from_the_initial_state(mutant: str) -> None:
    scenario = bounded.VIOLATIONS[mutant]
    run = bounded.search(RAFT, scenario, mutant)
    assert run is not None
    assert len(run.lines) == len(scenario.actions)
    assert bounded.search(RAFT, scenario) is None, "the protocol itself must not break the theorem"


def test_an_entry_of_an_old_term_is_lost_as_in_figure_8() -> None:
    """Ongaro 2014, figure 3.7: S1 commits an entry of an earlier term by counting, a later leader lacks it."""
    run = bounded.search(RAFT, bounded.VIOLATIONS["old_term_commit"], "old_term_commit")
    assert run is not None
    assert run.lines[-1].split()[1].startswith("become_leader")
    assert any("advance_commit" in line for line in run.lines)


def test_the_protocol_can_commit_apply_and_read() -> None:
    assert bounded.search(RAFT, bounded.WITNESS) is not None


def test_the_witness_of_a_commit_is_not_found_where_nothing_happens() -> None:
    idle = bounded.Scenario(("timeout",), Sizes(terms=2, indexes=2))
    assert bounded.search(RAFT, idle) is None


def test_the_lemmas_allow_every_action_after_a_commit_and_a_new_leader() -> None:
    assert sanity.unreachable(RAFT) == ()


def test_lemmas_that_forbid_an_action_are_noticed() -> None:
    def nobody_leads(a: FiniteAlgebra, s: Symbols) -> Value:
        return a.conj(*(a.neg(s.leader(n)) for n in range(3)))

    impossible = sanity.unreachable(RAFT, extra=nobody_leads)
    assert {"client_request", "advance_commit", "begin_read"} <= set(impossible)
    assert "timeout" not in impossible


def test_axioms_and_lemmas_do_not_contradict_each_other_without_bounds() -> None:
    """The quantified formulas by themselves must not be refuted: then they would prove anything."""
    algebra = unbounded.UnboundedAlgebra(RAFT.rigid)
    state = unbounded.functions(RAFT.signature)
    solver = z3.Solver()
    solver.set("mbqi", False)
    solver.set("rlimit", 2_000_000)
    solver.add(*algebra.axioms(), *(lemma.formula(algebra, state) for lemma in RAFT.lemmas))
    solver.add(state.elected(z3.Const("t", unbounded.SORTS[Sort.TERM])))
    assert solver.check() != z3.unsat


def test_a_lemma_that_is_false_is_not_proved(portfolio: Portfolio) -> None:
    """A check that cannot fail is worthless: "nobody is ever elected" is an invariant of nothing."""

    def nobody_elected(a: Algebra, s: Symbols) -> Value:
        return a.forall((Sort.TERM,), lambda t: a.neg(s.elected(t)))

    from dataclasses import replace

    from model_checks.proofs.algebra import state_property

    wrong = replace(RAFT, lemmas=(*RAFT.lemmas, state_property(nobody_elected)))
    obligation = Obligation(Kind.CONSECUTION, "become_leader", "nobody_elected")
    assert not prove(wrong, obligation, Portfolio(portfolio.selection, seconds_max=2.0)).proved
    found = cti.find(wrong, obligation)
    assert found is not None
    assert "> elected(" in found.text


# ---------------------------------------------------------------------------------------------------------- majorities


@pytest.mark.parametrize("case", ["base", "step", "conclusion"])
def test_majorities_intersect_by_induction_over_the_servers(case: str) -> None:
    solver = z3.Solver()
    solver.add(*majority.formulas(case))
    assert solver.check() == z3.unsat


def test_sets_that_are_no_majorities_need_not_intersect() -> None:
    solver = z3.Solver()
    solver.add(*majority.formulas("conclusion", "no_quorum"))
    assert solver.check() == z3.sat


def test_half_is_not_a_majority(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(majority, "is_majority", lambda members, everybody: 2 * members >= everybody)
    solver = z3.Solver()
    solver.add(*majority.formulas("conclusion"))
    assert solver.check() == z3.sat


# ----------------------------------------------------------------------------------------------------------- selection


@pytest.mark.timeout(300)
def test_no_lemma_is_idle(portfolio: Portfolio) -> None:
    needed_by = portfolio.selection.needed_by
    idle = [lemma.name for lemma in RAFT.lemmas if not sanity.still_needed(RAFT, needed_by[lemma.name], lemma.name)]
    assert idle == []


def test_an_idle_lemma_is_noticed() -> None:
    """voted_for is never in term 0 of a genesis log: true, and of no use to any other obligation."""
    obligation = BY_KEY["theorem/election_safety"]
    assert not selections.fails_without(RAFT, obligation, "log_genesis")
    assert selections.fails_without(RAFT, obligation, "winner_unique")


def test_a_selection_is_what_the_obligation_needs() -> None:
    assert selections.select(RAFT, BY_KEY["theorem/election_safety"]) == ("winner_unique",)
    assert unbounded.core(RAFT, BY_KEY["theorem/election_safety"], seed=0, limit=1_000_000) == ("winner_unique",)
