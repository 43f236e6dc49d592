"""Broken servers do not conform; and a protocol that is broken everywhere, spec included, breaks what is proved.

The mutants are those of exploration. In the first table only the servers are broken, and conformance names the step.
In the second the replay believes in the broken protocol too: then nothing but the invariants on facts and cuts can
tell, which shows that they do.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from model_checks.conformance import check_traces, server
from model_checks.conformance.linked import link_traces
from model_checks.conformance.spec_runs import SpecCluster, written
from model_checks.explore.mutants import MUTANTS
from model_checks.verdicts import CheckResult, Verdict

STEPS = 4_000
RESTARTS = "the disk keeps what it confirmed, and nothing that was not written"
TAKES_SLICE = "handle_append_entries_request yields the spec's state"
DURABLE = "durable before it is relied upon"

BROKEN_SERVERS = {
    "two_votes": ("raft", "handle_request_vote_request yields the spec's state"),
    "no_up_to_date_check": ("raft", "handle_request_vote_request yields the spec's state"),
    "old_term_commit": ("raft", "advance_commit_index is enabled"),
    "elected_without_quorum": ("raft", "become_leader is enabled"),
    "commit_without_quorum": ("durability", f"advance_commit_index: {DURABLE}"),
    "votes_survive_election": ("raft", "become_leader yields the spec's state"),
    "vote_before_durable": ("durability", f"vote_response: {DURABLE}"),
    "vote_forgotten_at_restart": ("durability", RESTARTS),
    "leader_match_survives_term": ("raft", "update_term yields the spec's state"),
    "truncate_without_conflict": ("raft", TAKES_SLICE),
    "ack_before_durable": ("durability", f"append_entries_response: {DURABLE}"),
    "leader_counts_itself_before_durable": ("durability", f"advance_commit_index: {DURABLE}"),
    "commit_all_received": ("raft", TAKES_SLICE),
    "commit_index_falls": ("raft", TAKES_SLICE),
    "apply_uncommitted": ("raft", "apply is enabled"),
    "apply_before_durable": ("durability", f"apply: {DURABLE}"),
    "read_without_own_commit": ("raft", "read_request is enabled"),
    "read_without_confirmation": ("raft", "confirm_read is enabled"),
    "round_not_numbered": ("raft", "confirm_read is enabled"),
}

BROKEN_EVERYWHERE = [
    ("elected_without_quorum", 2, "Election Safety"),
    ("elected_without_quorum", 2, "Log Matching"),
    ("no_up_to_date_check", 4, "Leader Completeness"),
    ("commit_without_quorum", 1, "Leader Completeness"),
    ("truncate_without_conflict", 2, "Leader Completeness"),
    ("commit_without_quorum", 1, "State Machine Safety"),
    ("apply_uncommitted", 1, "State Machine Safety"),
    ("commit_all_received", 1, "Committed Indexes"),
    ("read_without_own_commit", 1, "Read Linearizability"),
    ("votes_survive_election", 1, "Type Invariant"),
    ("two_votes", 1, "Durable Self-Vote"),
]


def judged(mutant: str, seed: int, directory: Path) -> dict[str, CheckResult]:
    """A run in which every server is the mutant."""
    lines = SpecCluster(seed, actions=MUTANTS[mutant].replaces).run(STEPS).lines
    return {result.checker.partition("/")[2]: result for result in check_traces(written(lines, directory))}


@pytest.mark.parametrize("mutant", BROKEN_SERVERS)
def test_a_broken_server_does_not_conform(mutant: str, tmp_path: Path) -> None:
    checker, broken = BROKEN_SERVERS[mutant]
    result = judged(mutant, 1, tmp_path)[checker]
    assert (result.verdict, result.property) == (Verdict.INVALID, broken)


def test_what_a_divergence_leaves_unjudged_is_unknown_not_valid(tmp_path: Path) -> None:
    results = judged("vote_forgotten_at_restart", 1, tmp_path)
    assert results["raft"].verdict == results["reads"].verdict == Verdict.UNKNOWN
    assert "judged only up to the divergence" in results["raft"].reason


@pytest.mark.parametrize(("mutant", "seed", "broken"), BROKEN_EVERYWHERE)
def test_a_protocol_that_conforms_to_itself_breaks_what_is_proved(
    mutant: str, seed: int, broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "ACTIONS", MUTANTS[mutant].protocol)
    results = judged(mutant, seed, tmp_path)
    assert results["raft"].verdict == results["durability"].verdict == Verdict.VALID
    assert results["invariants"].verdict == Verdict.INVALID
    assert broken in (results["invariants"].property, *also(results["invariants"]))


def also(result: CheckResult) -> list[str]:
    """The other properties that a result reports as broken."""
    return [line.split(": ")[1] for line in result.details.splitlines() if line.startswith("also: ")]


def test_the_steps_of_a_run_are_linked_to_the_proved_model(tmp_path: Path) -> None:
    linked = link_traces(written(SpecCluster(seed=3).run(1500).lines, tmp_path))
    assert (linked.checker, linked.verdict) == ("conformance/linking", Verdict.VALID)
    assert {"become_leader", "advance_commit_index", "handle_append_entries_request"} <= set(
        linked.figures["by_action"]
    )


@pytest.mark.parametrize("mutant", ["no_up_to_date_check", "commit_without_quorum", "vote_before_durable"])
def test_a_protocol_that_conforms_to_itself_is_not_linked(
    mutant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "ACTIONS", MUTANTS[mutant].protocol)
    linked = link_traces(written(SpecCluster(1, actions=MUTANTS[mutant].replaces).run(STEPS).lines, tmp_path))
    assert (linked.verdict, linked.property) == (Verdict.INVALID, "linked to the relational model")
