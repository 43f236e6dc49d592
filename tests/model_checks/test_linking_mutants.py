"""Broken specs are not linked; and a linking that ignores a guard, or leaves out a claim, is noticed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from model_checks.explore.mutants import MUTANTS
from model_checks.linking import claims as claimed
from model_checks.linking import evaluation, facts
from model_checks.linking.claims import Claim
from model_checks.linking.command import Groups, broken
from model_checks.linking.report import link_transitions
from model_checks.linking.walks import BOUNDS, Walk
from model_checks.proofs.algebra import Action
from model_checks.proofs.algebra import Transition as ModelTransition
from model_checks.verdicts import CheckResult, Verdict
from spec.raft.network import Transition
from spec.raft.types import Server

NOT_OF_THE_MODEL = {
    "votes_survive_election": "votes of a leader mean nothing: a matter of the type invariant",
    "commit_index_falls": "a follower's commit index is not part of the model, which knows only what is committed",
}
"""Mutants that linking does not see, and why; exploration does."""

FAR = {"commit_without_quorum": 10_000, "apply_before_durable": 10_000}
"""Mutants whose broken steps are not among the first states."""

BY_GUARD = {
    "two_votes": "grant_vote",
    "elected_without_quorum": "become_leader",
    "old_term_commit": "advance_commit",
    "leader_counts_itself_before_durable": "advance_commit",
    "apply_uncommitted": "apply_own",
    "apply_before_durable": "apply_told",
    "truncate_without_conflict": "recv_append_conflict",
    "read_without_own_commit": "begin_read",
    "read_without_confirmation": "confirm_read",
    "configuration_before_own_commit": "change_configuration",
    "configuration_before_last_commit": "change_configuration",
    "nonvoter_counted": "advance_commit",
    "absent_leader_counted": "advance_commit",
    "snapshot_drops_suffix": "recv_snapshot",
    "older_snapshot_installed": "recv_snapshot",
    "vote_without_waiting": "decide_vote",
    "campaign_without_waiting": "decide_vote",
    "lease_ends_as_votes_begin": "lease_read",
    "transfer_with_lease": "lease_read",
}
"""Mutants that the guard of one action of the model rejects."""


@cache
def steps_of(mutant: str) -> Groups:
    return broken(mutant, FAR.get(mutant, 3_000))


@pytest.mark.parametrize("name", sorted(set(MUTANTS) - set(NOT_OF_THE_MODEL)))
def test_a_broken_spec_is_not_linked(name: str) -> None:
    checked = link_transitions(steps_of(name))
    assert checked.verdict is Verdict.INVALID
    assert checked.reason
    assert "rejected:" in checked.details
    if name in BY_GUARD:
        assert f"the guard of {BY_GUARD[name]}(" in checked.details


@pytest.mark.parametrize("name", sorted(NOT_OF_THE_MODEL))
def test_what_linking_does_not_see_is_known(name: str) -> None:
    assert link_transitions(steps_of(name)).verdict is Verdict.VALID


def without_guard(act: Action) -> Action:
    """The action, always enabled."""

    def rule(*arguments: Any) -> ModelTransition:
        return ModelTransition(True, act.rule(*arguments).updates)

    return replace(act, rule=rule)


@pytest.mark.parametrize("name", sorted(BY_GUARD))
def test_a_linking_that_ignores_a_guard_does_not_see_what_it_forbids(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    act = BY_GUARD[name]
    monkeypatch.setitem(evaluation.ACTIONS, act, without_guard(evaluation.ACTIONS[act]))
    assert f"the guard of {act}(" not in link_transitions(steps_of(name)).details


# -------------------------------------------------------------------------------------------------------------- claims

CLAIMS = (
    *("vote", "vote_request", "sent", "acknowledged", "answered", "round_begun", "round_heard", "read_begun"),
    *("prevote", "lease_ended", "decided", "may_campaign", "applied_up_to", "elected"),
)

HISTORY = {"elected", "applied_up_to"}
"""What happened at this server: no guard reads it, the facts that the spec emits do."""


@cache
def walked_steps() -> list[Transition]:
    """Steps of two random runs in which every claim is made."""
    return [step for seed in (11, 15) for step in Walk(seed).steps(800)]


def linked() -> CheckResult:
    return link_transitions([(BOUNDS.constants(), walked_steps())])


def leaving_out(symbol: str) -> Callable[[str, Server], Iterator[Claim]]:
    """`claims` without one kind."""

    def fewer(i: str, s: Server) -> Iterator[Claim]:
        return (claim for claim in claimed.claims(i, s) if claim.symbol != symbol)

    return fewer


def test_every_kind_of_claim_is_made() -> None:
    made = {claim.symbol for step in walked_steps() for claim in claimed.claims(step.server, step.after)}
    assert made == set(CLAIMS)


@pytest.mark.parametrize("symbol", sorted(set(CLAIMS) - HISTORY))
def test_a_claim_left_out_is_missed_by_a_later_step(symbol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it some guard is not known to be true, or some message says what nothing established."""
    monkeypatch.setattr(evaluation, "claims", leaving_out(symbol))
    monkeypatch.setattr(facts, "claims", leaving_out(symbol))
    assert linked().verdict is Verdict.INVALID


@pytest.mark.parametrize("name", ["no_prev_check", "commit_all_received", "stale_vote_counted"])
def test_claims_that_nobody_must_establish_let_broken_specs_pass(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims are an induction hypothesis: what is assumed of a state must be shown where it is reached."""
    assert "which nothing established" in link_transitions(steps_of(name)).details
    monkeypatch.setattr(facts, "claims", lambda i, s: iter(()))
    assert "which nothing established" not in link_transitions(steps_of(name)).details


def test_the_random_runs_are_linked_with_all_claims() -> None:
    assert linked().verdict is Verdict.VALID
