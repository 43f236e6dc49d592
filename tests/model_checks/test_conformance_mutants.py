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
SEEDS = range(1, 30)
"""One of so many runs must show what is broken; most often the first does."""
TAKES_SLICE = "handle_append_entries_request yields the spec's state"
INSTALLS = "handle_install_snapshot_request yields the spec's state"
DURABLE = "durable before it is relied upon"

BROKEN_SERVERS = {
    "two_votes": ("raft", "handle_request_vote_request yields the spec's state"),
    "no_up_to_date_check": ("raft", "handle_request_vote_request yields the spec's state"),
    "old_term_commit": ("raft", "advance_commit_index is enabled"),
    "elected_without_quorum": ("raft", "become_leader is enabled"),
    "commit_without_quorum": ("raft", "advance_commit_index is enabled"),
    "votes_survive_election": ("raft", "become_leader yields the spec's state"),
    "vote_before_durable": ("durability", f"vote_response: {DURABLE}"),
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
    "configuration_before_own_commit": ("raft", "change_configuration is enabled"),
    "configuration_before_last_commit": ("raft", "change_configuration is enabled"),
    "several_servers_at_once": ("raft", "change_configuration is enabled"),
    "nonvoter_counted": ("raft", "advance_commit_index is enabled"),
    "absent_leader_counted": ("raft", "advance_commit_index is enabled"),
    "snapshot_drops_suffix": ("raft", INSTALLS),
    "older_snapshot_installed": ("raft", INSTALLS),
    "vote_without_waiting": ("raft", "handle_request_vote_request yields the spec's state"),
    "campaign_without_waiting": ("raft", "timeout is enabled"),
    "lease_ends_as_votes_begin": ("raft", "lease_read is enabled"),
    "transfer_with_lease": ("raft", "lease_read is enabled"),
}
"""Mutant -> who notices it, and by which rule."""

BROKEN_EVERYWHERE = [
    ("elected_without_quorum", "Election Safety"),
    ("no_up_to_date_check", "Leader Completeness"),
    ("commit_without_quorum", "Leader Completeness"),
    ("truncate_without_conflict", "Leader Completeness"),
    ("commit_without_quorum", "State Machine Safety"),
    ("apply_uncommitted", "State Machine Safety"),
    ("commit_all_received", "Committed Indexes"),
    ("read_without_own_commit", "Read Linearizability"),
    ("votes_survive_election", "Type Invariant"),
    ("two_votes", "Durable Self-Vote"),
    ("configuration_before_last_commit", "One Configuration at a Time"),
    ("snapshot_drops_suffix", "Durable Promises"),
    ("older_snapshot_installed", "Monotone Snapshots"),
    ("commit_index_falls", "Monotone Indexes"),
]


def judged(mutant: str, seed: int, directory: Path) -> dict[str, CheckResult]:
    """A run in which every server is the mutant."""
    lines = SpecCluster(seed, actions=MUTANTS[mutant].replaces).run(STEPS).lines
    into = directory / str(seed)
    into.mkdir()
    return {result.checker.partition("/")[2]: result for result in check_traces(written(lines, into))}


@pytest.mark.parametrize("mutant", BROKEN_SERVERS)
def test_a_broken_server_does_not_conform(mutant: str, tmp_path: Path) -> None:
    checker, broken = BROKEN_SERVERS[mutant]
    runs = (judged(mutant, seed, tmp_path)[checker] for seed in SEEDS)
    assert any((result.verdict, result.property) == (Verdict.INVALID, broken) for result in runs)


def test_what_a_divergence_leaves_unjudged_is_unknown_not_valid(tmp_path: Path) -> None:
    results = judged("apply_before_durable", 1, tmp_path)
    assert results["raft"].verdict == results["reads"].verdict == Verdict.UNKNOWN
    assert "judged only up to the divergence" in results["raft"].reason


@pytest.mark.parametrize(("mutant", "broken"), BROKEN_EVERYWHERE)
def test_a_protocol_that_conforms_to_itself_breaks_what_is_proved(
    mutant: str, broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "ACTIONS", MUTANTS[mutant].protocol)
    for seed in SEEDS:
        results = judged(mutant, seed, tmp_path)
        assert results["raft"].verdict == results["durability"].verdict == Verdict.VALID
        if broken in (results["invariants"].property, *also(results["invariants"])):
            return
    raise AssertionError(f"{broken} was broken in no run")


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
