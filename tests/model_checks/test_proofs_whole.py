"""The proof of the rest of Raft: membership changes, snapshots, leases with transfer and pre-vote, all at once.

Everything is unsatisfiable for any number of servers; each rule that the dissertation or raft-dev insists on is needed.
"""

from __future__ import annotations

import pytest
import z3

from model_checks.proofs import bounded, cti, drift, ghosts, majority, model, sanity, unbounded, whole_runs
from model_checks.proofs import selection as selections
from model_checks.proofs.algebra import Action, Algebra, Sort, Symbols, Transition, Value, action, refined
from model_checks.proofs.finite import FiniteAlgebra
from model_checks.proofs.obligations import Obligation, obligations
from model_checks.proofs.prover import Portfolio, prove
from model_checks.proofs.report import status, verdict
from model_checks.proofs.run import prove_systems
from model_checks.proofs.snapshots import recv_snapshot
from model_checks.proofs.systems import named
from model_checks.proofs.unbounded import instance
from model_checks.proofs.whole import MUTANTS, SIZES, WHOLE
from model_checks.verdicts import Verdict

BY_KEY = {obligation.key: obligation for obligation in obligations(WHOLE)}

BROKEN = {
    # the rules of static Raft are needed here, too
    "two_votes": "grant_vote/vote_unique",
    "no_up_to_date_check": "grant_vote/candidate_holds",
    "no_prev_check": "recv_append_noconflict/agreed_below",
    "old_term_commit": "advance_commit/commit_acknowledged",
    "ack_before_durable": "append_own/acker",
    "read_without_own_commit": "begin_read/seen_bound",
    "read_without_term_check": "confirm_leadership/elected_unheard",
    # membership: Ongaro 2014, section 4.1; the first is the bug of raft-dev, 2015
    "no_own_term": "change_configuration/configuration_chain",
    "no_previous_committed": "change_configuration/configuration_chain",
    "any_change": "change_configuration/configuration_chain",
    "votes_of_any_configuration": "become_leader/elected_first",
    "commits_of_any_configuration": "advance_commit/commit_configuration",
    # snapshots: chapter 5
    "snapshot_uncommitted": "take_snapshot_told/snapshot_prefix",
    "compact_beyond_snapshot": "compact/snapshot_applied",
    "snapshot_drops_suffix": "recv_snapshot/snapshot_covers",
    "older_snapshot": "recv_snapshot/applied_forward",
    # leases: sections 4.2.3 and 6.4.1
    "long_lease": "lease_read/lease_current",
    "endless_lease": "lease_read/lease_current",
    "lease_from_reply": "begin_round/round_sane",
    "lease_without_own_commit": "lease_read/seen_bound",
    "no_check_quorum": "decide_vote/decided_after",
    "restart_votes_at_once": "restart/confirmed_since",
    "round_without_term_check": "confirm_round/vote_after",
    "transfer_with_lease": "lease_read/lease_current",
    "urged_by_older_lease": "decide_vote_urged/decided_after",
}
"""For each mutant an obligation that the protocol satisfies and the mutant does not."""

IN_FULL = ("no_own_term", "snapshot_drops_suffix", "older_snapshot", "restart_votes_at_once", "lease_from_reply")
"""Mutants whose counterexamples to induction are looked for here; `comitia check prove` finds the others' as well."""


@pytest.fixture(scope="module")
def portfolio() -> Portfolio:
    return Portfolio(selections.load(WHOLE, named("whole").selection), system="whole")


@pytest.mark.timeout(300)
def test_every_theorem_holds_whatever_the_configurations_snapshots_and_leases(portfolio: Portfolio) -> None:
    report = prove_systems([portfolio], jobs=2)
    (findings,) = report.systems
    assert findings.unproved == []
    assert findings.unreachable == ()
    assert findings.witness
    assert set(status(findings).values()) == {"UNBOUNDED"}
    assert report.ghosts == []
    assert verdict(findings) == (Verdict.VALID, "")


def test_every_mutant_is_examined() -> None:
    assert set(BROKEN) == set(MUTANTS)
    assert set(whole_runs.VIOLATIONS) == set(MUTANTS)


@pytest.mark.parametrize("mutant", sorted(BROKEN))
def test_a_weakened_protocol_is_not_proved(mutant: str, portfolio: Portfolio) -> None:
    obligation = BY_KEY[BROKEN[mutant]]
    assert prove(WHOLE, obligation, portfolio).proved
    weakened = Portfolio(portfolio.selection, mutant=mutant, seconds_max=0.3, system="whole")
    assert not prove(WHOLE, obligation, weakened).proved


@pytest.mark.parametrize("mutant", IN_FULL)
def test_a_weakened_protocol_has_a_counterexample_to_induction(mutant: str) -> None:
    found = cti.find(WHOLE, BY_KEY[BROKEN[mutant]], mutant, SIZES)
    assert found is not None
    assert found.text.startswith(BY_KEY[BROKEN[mutant]].subject)
    assert "c0 = n0, n1, n2: born at" in found.text


def test_the_protocol_itself_has_no_counterexample_where_a_mutant_has_one() -> None:
    assert cti.find(WHOLE, BY_KEY[BROKEN["no_own_term"]], None, SIZES) is None


@pytest.mark.parametrize("mutant", sorted(set(whole_runs.VIOLATIONS) - set(bounded.VIOLATIONS)))
def test_a_weakened_protocol_breaks_a_theorem_from_the_initial_state(mutant: str) -> None:
    """(The protocol itself does not: that is proved.)"""
    system, scenario = whole_runs.VIOLATIONS[mutant]
    run = bounded.search(system, scenario, mutant)
    assert run is not None
    assert len(run.lines) == len(scenario.actions)


def test_two_leaders_that_each_remove_a_server_lose_a_commit_without_the_own_term_rule() -> None:
    """raft-dev, 2015: {0, 1, 2, 3} becomes {0, 1, 2} for one leader and {1, 2, 3} for the next."""
    run = named("whole").violation("no_own_term")
    assert run is not None
    steps = [line.split()[1].partition("(")[0] for line in run.lines]
    assert steps.count("change_configuration") == 2
    assert steps.count("become_leader") == 3
    assert steps.index("advance_commit") > steps.index("change_configuration")


def test_the_protocol_can_change_servers_install_a_snapshot_and_read_by_its_lease() -> None:
    run = named("whole").possible()
    assert run is not None
    assert any("recv_snapshot" in line for line in run.lines)
    assert "lease_read" in run.lines[-1]


# ---------------------------------------------------------------------------------------------------- is it vacuous?


def test_the_lemmas_allow_every_action_after_a_commit_and_a_new_leader() -> None:
    assert sanity.unreachable(WHOLE, SIZES) == ()


def test_axioms_and_lemmas_do_not_contradict_each_other_without_bounds() -> None:
    algebra = unbounded.UnboundedAlgebra(WHOLE.rigid)
    state = unbounded.functions(WHOLE.signature)
    solver = z3.Solver()
    solver.set("mbqi", False)
    solver.set("rlimit", 2_000_000)
    solver.add(*algebra.axioms(), *WHOLE.axioms(algebra), *(lemma.formula(algebra, state) for lemma in WHOLE.lemmas))
    solver.add(state.elected(z3.Const("t", unbounded.SORTS[Sort.TERM])))
    assert solver.check() != z3.unsat


@pytest.mark.parametrize("lemma", ["configuration_chain", "snapshot_prefix", "vote_after", "read_ancestors"])
def test_a_lemma_that_was_added_is_needed(lemma: str, portfolio: Portfolio) -> None:
    assert sanity.still_needed(WHOLE, portfolio.selection.needed_by[lemma], lemma, SIZES)


def test_that_later_leaders_hold_commits_is_the_only_lemma_that_others_imply(portfolio: Portfolio) -> None:
    """In static Raft it is a step. `check prove --needs` shows that all others are needed."""
    assert set(named("whole").implied) == {"commit_later"}
    assert not sanity.still_needed(WHOLE, portfolio.selection.needed_by["commit_later"], "commit_later", SIZES)


def test_prevote_is_mentioned_by_no_lemma() -> None:
    algebra = unbounded.UnboundedAlgebra(WHOLE.rigid)
    state = unbounded.functions(WHOLE.signature)
    text = " ".join(prop.formula(algebra, state).sexpr() for prop in (*WHOLE.lemmas, *WHOLE.theorems))
    assert "prevote" not in text
    assert "(vote " in text


# ------------------------------------------------------------------------------------- what is assumed, proved apart


@pytest.mark.parametrize("case", ["base", "step", "conclusion"])
def test_majorities_of_adjacent_configurations_intersect(case: str) -> None:
    solver = z3.Solver()
    solver.add(*majority.formulas(f"adjacent_{case}"))
    assert solver.check() == z3.unsat


def test_majorities_of_configurations_that_differ_by_two_servers_need_not_intersect() -> None:
    solver = z3.Solver()
    solver.add(*majority.formulas("adjacent_conclusion", "any_change"))
    assert solver.check() == z3.sat


def test_a_lease_ends_before_any_follower_votes_if_it_allows_for_both_clocks() -> None:
    solver = z3.Solver()
    solver.add(*drift.formulas())
    assert solver.check() == z3.unsat


def test_a_lease_that_allows_for_one_clock_only_is_too_long() -> None:
    solver = z3.Solver()
    solver.add(*drift.formulas("long_lease"))
    assert solver.check() == z3.sat


# ----------------------------------------------------------------------------------------------------------- history


def test_a_receiver_that_compares_what_it_compacted_is_noticed() -> None:
    found = list(ghosts.dependences(WHOLE, model.recv_append_noconflict))
    assert ghosts.Dependence("recv_append_noconflict", "guard") in found


def test_a_leader_that_sends_what_it_has_forgotten_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model lets it, so that messages are as many as can be; what a server can do excludes it."""
    monkeypatch.setattr(ghosts, "REAL", {})
    found = list(ghosts.dependences(WHOLE, WHOLE.action("send_append")))
    assert [dependence.what for dependence in found] == ["guard"]


def test_a_snapshot_whose_last_entry_is_compared_elsewhere_is_noticed() -> None:
    """The receiver may look at the last entry that the snapshot covers only: it has nothing before its base."""

    def also_the_first(a: Algebra, s: Symbols, n: Value, m: Value) -> Transition:
        return Transition(a.forall((Sort.INDEX,), lambda j: s.log_term(n, j) != a.rigid.entry_term(m, j)), {})

    found = list(ghosts.dependences(WHOLE, refined(recv_snapshot, also_the_first)))
    assert [dependence.what for dependence in found] == ["guard"]


# ------------------------------------------------------------------------------------------- how steps are proved


def test_a_step_is_an_obligation_for_each_cut_and_one_for_itself() -> None:
    keys = [key for key in BY_KEY if key.startswith("advance_commit/commit_kept")]
    assert keys == [
        "advance_commit/commit_kept:first_allowed",
        "advance_commit/commit_kept:second_allowed",
        "advance_commit/commit_kept:adjacent",
        "advance_commit/commit_kept",
    ]


def test_a_cut_that_does_not_follow_is_not_proved(portfolio: Portfolio) -> None:
    """With votes of any configuration a winner's quorum is not of its configuration: the last cut does not help."""
    weakened = Portfolio(portfolio.selection, mutant="votes_of_any_configuration", seconds_max=0.3, system="whole")
    assert not prove(WHOLE, BY_KEY["become_leader/winner_holds"], weakened).proved


def test_an_instance_of_a_hypothesis_takes_as_many_terms_as_it_has_variables() -> None:
    x = z3.Const("x", unbounded.SORTS[Sort.TERM])
    y = z3.Const("y", unbounded.SORTS[Sort.TERM])
    with pytest.raises(ValueError, match="2 terms are not an instance"):
        instance(z3.ForAll([x], x == x), (x, y))
    assert instance(z3.ForAll([x, y], x == y), (y, x)).eq(y == x)


def test_a_refined_action_keeps_its_guard_and_effects_and_adds_to_them() -> None:
    @action(n=Sort.NODE)
    def base(a: Algebra, s: Symbols, n: Value) -> Transition:
        return Transition(n == 0, {"leader": lambda x: False, "candidate": lambda x: False})

    def more(a: Algebra, s: Symbols, n: Value, t: Value) -> Transition:
        return Transition(t == 1, {"leader": lambda x: True})

    found: Action = refined(base, more, t=Sort.TERM)
    a = FiniteAlgebra(WHOLE, SIZES)
    assert tuple(found.parameters) == ("n", "t")
    assert found.rule(a, Symbols({}), 0, 1).guard is True
    assert found.rule(a, Symbols({}), 0, 2).guard is False
    assert found.rule(a, Symbols({}), 1, 1).guard is False
    effects = found.rule(a, Symbols({}), 0, 1).updates
    assert (effects["leader"](0), effects["candidate"](0)) == (True, False)


def test_a_restart_may_forget_what_was_applied_and_nothing_else_may() -> None:
    assert "restart/applied_forward" not in BY_KEY
    assert "restart/base_forward" in BY_KEY
    assert isinstance(BY_KEY["recv_snapshot/applied_forward"], Obligation)
