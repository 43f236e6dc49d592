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
TAKES_SLICE = "handle_append_entries_request yields the spec's state"
INSTALLS = "handle_install_snapshot_request yields the spec's state"
DURABLE = "durable before it is relied upon"

BROKEN_SERVERS = {
    "two_votes": (1, "raft", "handle_request_vote_request yields the spec's state"),
    "no_up_to_date_check": (1, "raft", "handle_request_vote_request yields the spec's state"),
    "old_term_commit": (2, "raft", "advance_commit_index is enabled"),
    "elected_without_quorum": (1, "raft", "become_leader is enabled"),
    "commit_without_quorum": (1, "raft", "advance_commit_index is enabled"),
    "votes_survive_election": (1, "raft", "become_leader yields the spec's state"),
    "vote_before_durable": (1, "durability", f"vote_response: {DURABLE}"),
    "leader_match_survives_term": (1, "raft", "update_term yields the spec's state"),
    "truncate_without_conflict": (1, "raft", TAKES_SLICE),
    "ack_before_durable": (1, "durability", f"append_entries_response: {DURABLE}"),
    "leader_counts_itself_before_durable": (18, "durability", f"advance_commit_index: {DURABLE}"),
    "commit_all_received": (1, "raft", TAKES_SLICE),
    "commit_index_falls": (1, "raft", TAKES_SLICE),
    "apply_uncommitted": (1, "raft", "apply is enabled"),
    "apply_before_durable": (1, "durability", f"apply: {DURABLE}"),
    "read_without_own_commit": (1, "raft", "read_request is enabled"),
    "read_without_confirmation": (1, "raft", "confirm_read is enabled"),
    "round_not_numbered": (1, "raft", "confirm_read is enabled"),
    "configuration_before_own_commit": (1, "raft", "change_configuration is enabled"),
    "configuration_before_last_commit": (1, "raft", "change_configuration is enabled"),
    "several_servers_at_once": (1, "raft", "change_configuration is enabled"),
    "nonvoter_counted": (1, "raft", "advance_commit_index is enabled"),
    "absent_leader_counted": (1, "raft", "advance_commit_index is enabled"),
    "snapshot_drops_suffix": (1, "raft", INSTALLS),
    "older_snapshot_installed": (3, "raft", INSTALLS),
    "vote_without_waiting": (1, "raft", "handle_request_vote_request yields the spec's state"),
    "campaign_without_waiting": (1, "raft", "timeout is enabled"),
    "lease_ends_as_votes_begin": (1, "raft", "lease_read is enabled"),
    "transfer_with_lease": (5, "raft", "lease_read is enabled"),
}
"""Mutant -> a seed with which it is noticed, the checker and the rule."""

BROKEN_EVERYWHERE = [
    ("elected_without_quorum", 2, "Election Safety"),
    ("no_up_to_date_check", 2, "Leader Completeness"),
    ("commit_without_quorum", 1, "Leader Completeness"),
    ("truncate_without_conflict", 2, "Leader Completeness"),
    ("commit_without_quorum", 1, "State Machine Safety"),
    ("apply_uncommitted", 1, "State Machine Safety"),
    ("commit_all_received", 1, "Committed Indexes"),
    ("read_without_own_commit", 1, "Read Linearizability"),
    ("votes_survive_election", 1, "Type Invariant"),
    ("two_votes", 4, "Durable Self-Vote"),
    ("configuration_before_last_commit", 3, "One Configuration at a Time"),
    ("snapshot_drops_suffix", 2, "Durable Promises"),
    ("older_snapshot_installed", 3, "Monotone Snapshots"),
    ("commit_index_falls", 1, "Monotone Indexes"),
]


def judged(mutant: str, seed: int, directory: Path) -> dict[str, CheckResult]:
    """A run in which every server is the mutant."""
    lines = SpecCluster(seed, actions=MUTANTS[mutant].replaces).run(STEPS).lines
    return {result.checker.partition("/")[2]: result for result in check_traces(written(lines, directory))}


@pytest.mark.parametrize("mutant", BROKEN_SERVERS)
def test_a_broken_server_does_not_conform(mutant: str, tmp_path: Path) -> None:
    seed, checker, broken = BROKEN_SERVERS[mutant]
    result = judged(mutant, seed, tmp_path)[checker]
    assert (result.verdict, result.property) == (Verdict.INVALID, broken)


def test_what_a_divergence_leaves_unjudged_is_unknown_not_valid(tmp_path: Path) -> None:
    results = judged("apply_before_durable", 1, tmp_path)
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
