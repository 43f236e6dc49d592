"""The steps of recorded runs are linked: what is frequent while logs are short, what is seldom all along the run."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from model_checks.conformance import server
from model_checks.conformance.linked import LOG_MAX, Recorder, is_seldom, link_traces
from model_checks.conformance.spec_nodes import Lines
from model_checks.conformance.spec_runs import SpecCluster, written
from model_checks.explore.mutants import MUTANTS
from model_checks.verdicts import Verdict
from spec.raft.actions import ACTIONS, restarted
from spec.raft.log import log_of
from spec.raft.types import Configuration, Constants, Entry, Point, Write

SELDOM_IN_ANY_RUN = {
    *("request_pre_vote", "handle_pre_vote_request", "timeout", "become_leader", "update_term"),
    *("transfer_leadership", "handle_timeout_now", "handle_lease_ended", "change_configuration"),
    *("take_snapshot", "compact", "install_snapshot", "handle_install_snapshot_request", "restore_snapshot"),
}


@pytest.fixture(scope="module")
def run() -> Lines:
    return SpecCluster(seed=13).run(4_000).lines


def test_the_steps_of_a_run_of_the_whole_protocol_are_linked(run: Lines, tmp_path: Path) -> None:
    linked = link_traces(written(run, tmp_path), steps_max=1_500)
    assert (linked.checker, linked.verdict) == ("conformance/linking", Verdict.VALID), linked.details
    assert set(linked.figures["by_action"]) >= SELDOM_IN_ANY_RUN
    assert linked.figures["steps_of_the_run"] > linked.figures["linked"] > 1_000


@pytest.mark.parametrize("mutant", ["vote_without_waiting", "read_without_own_commit"])
def test_the_steps_of_broken_servers_are_not_linked(
    mutant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if conformance were to judge them by the same broken spec."""
    protocol = MUTANTS[mutant].protocol
    monkeypatch.setattr(server, "ACTIONS", protocol)
    for seed in range(1, 6):
        cluster = SpecCluster(seed=seed, actions=protocol).run(1_500)
        directory = tmp_path / str(seed)
        directory.mkdir()
        linked = link_traces(written(cluster.lines, directory))
        if linked.verdict is Verdict.INVALID:
            return
    pytest.fail(f"{mutant} was linked in every run")


def test_what_is_written_seldom_is_linked_whatever_the_length_of_the_log() -> None:
    entry = Entry(1, "a")
    s = restarted(Point(1, None, log_of((entry,) * LOG_MAX)))
    changed = Entry(1, "", Configuration(("s1", "s2")))
    for point, seldom in (
        (Point(1, None, s.log.append(entry)), False),
        (Point(1, None, s.log.append(changed)), True),
        (Point(2, None, s.log), True),
        (Point(1, "s2", s.log), True),
        (Point(1, None, s.log, 3), True),
        (Point(1, None, s.log, 0, 3), True),
    ):
        writing = replace(s, issued=(Write(point),))
        assert is_seldom("persist", writing, (1,)) is seldom


def test_a_recorder_counts_all_and_keeps_each_step_once() -> None:
    recorder = Recorder(steps_max=10)
    timeout = recorder.recording("timeout", ACTIONS["timeout"])
    c, s = Constants(("s1", "s2")), restarted(Point(0, None, log_of(())))
    assert timeout(c, "s1", s, 0) == timeout(c, "s1", s, 0)
    assert (recorder.taken, len(recorder.steps)) == (2, 1)
