"""The stateful machine, the hunt and `check stateful`: sound cores pass, with enough of everything having happened."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis.stateful import run_state_machine_as_test

from impl.raft import snapshots
from impl.raft.ready import SnapshotMeta
from impl.raft.server import Server
from model_checks.stateful import run
from model_checks.stateful.command import command
from model_checks.stateful.hunt import HUNT_STEPS, Found, try_seed
from model_checks.stateful.machine import PROFILES, CoreMachine
from model_checks.stateful.mutants import applied
from model_checks.stateful.script import BadScript, run_script
from model_checks.stateful.violations import Property, Violation
from model_checks.verdicts import Verdict

PROFILE = os.environ.get("COMITIA_PROFILE", "ci")


def test_cores_keep_rafts_properties_and_follow_the_spec_under_any_schedule_of_hypothesis() -> None:
    run_state_machine_as_test(CoreMachine, settings=PROFILES[PROFILE]())
    left_to_the_hunt = {"read by lease", "snapshot restored", "power failed in a call", "configuration changed"}
    assert not [name for name in run.MUST_HAPPEN if not CoreMachine.totals[name] and name not in left_to_the_hunt]


def test_the_machine_finds_a_mutant_and_leaves_a_schedule_that_fails_again() -> None:
    with applied("election-without-quorum"):
        with pytest.raises(Violation) as caught:
            run_state_machine_as_test(CoreMachine, settings=PROFILES["ci"]())
        with pytest.raises(Violation) as again:
            run_script(CoreMachine.failed)
    assert caught.value.property is again.value.property is Property.CONFORMANCE


def test_a_server_that_has_just_received_a_snapshot_takes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make verify` met it: StopIteration, for the log no longer went back to what was applied. An agent would end."""
    schedule = Path(__file__).with_name("snapshot_while_one_arrives.txt").read_text().splitlines()
    assert run_script(schedule).counts["snapshot taken"] > 0
    describe = snapshots.describe

    def unaware(server: Server) -> SnapshotMeta:
        server.restore, restore = None, server.restore
        try:
            return describe(server)
        finally:
            server.restore = restore

    monkeypatch.setattr(snapshots, "describe", unaware)
    with pytest.raises(StopIteration):
        run_script(schedule)


def test_a_member_that_was_cut_off_until_the_end_may_campaign_once_before_all_is_calm() -> None:
    """It was taken for a disturbance from outside, once in some thousand schedules."""
    run_script(Path(__file__).with_name("member_cut_off_until_the_end.txt").read_text().splitlines())


def test_hunted_schedules_end_in_agreement_with_nothing_acknowledged_lost() -> None:
    outcomes = [try_seed(seed, HUNT_STEPS) for seed in range(200)]
    assert [outcome for outcome in outcomes if isinstance(outcome, Found)] == []


def test_the_same_seed_gives_the_same_schedule() -> None:
    first, second = try_seed(7, HUNT_STEPS), try_seed(7, HUNT_STEPS)
    assert not isinstance(first, Found) and not isinstance(second, Found)
    assert first.transcript == second.transcript


def test_a_transcript_runs_again_to_the_same_end() -> None:
    hunted = try_seed(11, HUNT_STEPS)
    assert not isinstance(hunted, Found)
    again = run_script(hunted.transcript)
    assert [again.status(name) for name in again.names] == [hunted.status(name) for name in hunted.names]
    assert again.transcript == hunted.transcript


def test_a_run_in_which_too_little_happens_is_unknown_and_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "MUST_HAPPEN", ("elected", "eclipse"))
    result = run.run_stateful(seed=1, examples=2)
    assert result.verdict is Verdict.UNKNOWN
    assert result.reason == "too little happened: no eclipse; run it for longer"


def test_check_stateful_prints_a_replay_command_and_ends_with_json() -> None:
    outcome = CliRunner().invoke(command, ["--seed", "5", "--examples", "120", "--json"], standalone_mode=False)
    lines = outcome.output.splitlines()
    report = msgspec.json.decode(lines[-1])
    assert outcome.return_value == 0
    assert lines[0] == "seed 5; repeat with: comitia check stateful --seed 5 --examples 120"
    assert report["verdict"] == "VALID" and report["figures"]["acknowledged"] > 0
    assert 0 < len(report["summary"]) <= 110


def test_check_stateful_of_a_mutant_is_invalid_and_its_schedule_can_be_replayed(tmp_path: Path) -> None:
    arguments = ["--examples", "400", "--mutant", "commit-without-quorum", "--json"]
    outcome = CliRunner().invoke(command, arguments, standalone_mode=False)
    report = msgspec.json.decode(outcome.output.splitlines()[-1])
    assert outcome.return_value == 1
    assert (report["verdict"], report["property"]) == ("INVALID", "Conformance")
    schedule = tmp_path / "schedule.txt"
    schedule.write_text(report["details"])
    with applied("commit-without-quorum"):
        assert CliRunner().invoke(command, ["--replay", str(schedule)], standalone_mode=False).return_value == 1
    assert CliRunner().invoke(command, ["--replay", str(schedule)], standalone_mode=False).return_value == 0


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("timeout s1", "a script begins with: servers N"),
        ("servers 3\nexplode s1", "line 2, 'explode s1': no such command"),
        ("servers 3\ntick s9", "needs 1 of the servers s1, s2, s3"),
        ("servers 3\ndeliver s1 s2", "no such message is in flight"),
        ("servers 3\ncrash s1\ntick s1", "s1 is down"),
        ("servers 3\nrestart s1", "s1 runs already"),
        ("", "a script begins with: servers N"),
    ],
)
def test_a_line_that_cannot_be_run_is_named(script: str, complaint: str) -> None:
    with pytest.raises(BadScript, match=complaint):
        run_script(script.splitlines())
