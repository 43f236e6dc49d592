"""A run's directory: written line by line, judged from what it holds, and never VALID when it holds too little."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from click.testing import CliRunner

from jepsen_like import analysis
from jepsen_like.analysis import analyze
from jepsen_like.chaos import command
from jepsen_like.nemesis.book import Fault
from jepsen_like.nemesis.package import PACKAGES
from jepsen_like.nemesis.partition import between
from jepsen_like.report.page import shading
from jepsen_like.runner import replay_command
from jepsen_like.store.run_directory import (
    ChaosParams,
    Journal,
    Leadership,
    RunDirectory,
    RunSummary,
    load_lines,
)
from model_checks.histories.events import Event, EventType
from model_checks.verdicts import CheckResult, Verdict

SECOND = 1_000_000_000
PARAMS = ChaosParams(nodes=3, clients=0, nemesis=("partition",), time_limit_s=1.0, seed=5, concurrency=3)
FINISHED = RunSummary(started_ns=0, ended_ns=9 * SECOND, healed_ns=8 * SECOND, live_s=0.4)


def fault(f: str, at: int, nodes: tuple[str, ...], cut: tuple[tuple[str, str], ...]) -> Fault:
    return Fault(
        package="partition",
        f=f,
        nodes=nodes,
        what="s1 | s2 s3",
        leader="s1",
        start_ns=at,
        end_ns=at + 1,
        cut=cut,
        paused=(),
        dead=(),
    )


def a_run(
    root: Path, *, stale: bool = False, operations: int = 40, summary: RunSummary | None = FINISHED
) -> RunDirectory:
    """A stored run with a cut around the leader; `stale`: its last read shows the value before the last."""
    directory = RunDirectory.create(root, PARAMS, replay_command(PARAMS))
    history, faults, leaders = (Journal(path) for path in (directory.history, directory.faults, directory.leaders))
    for number in range(operations):
        process, value = number % 3, number
        for kind in (EventType.INVOKE, EventType.OK):
            history.event(
                Event(
                    process,
                    kind,
                    "write",
                    time=number * SECOND // 10,
                    key=0,
                    value=value,
                    index=2 * number + (kind == "ok"),
                )
            )
    answer = operations - 2 if stale else operations - 1
    history.event(Event(0, EventType.INVOKE, "read", index=2 * operations, time=7 * SECOND, key=0))
    history.event(Event(0, EventType.OK, "read", index=2 * operations + 1, time=7 * SECOND + 5, key=0, value=answer))
    faults.line(fault("cut", SECOND, ("s1",), between(["s1"], ["s2", "s3"])))
    faults.line(fault("heal", 2 * SECOND, (), ()))
    leaders.line(Leadership(SECOND // 2, "s1", 1))
    leaders.line(Leadership(2 * SECOND, "s2", 2))
    for journal in (history, faults, leaders):
        journal.close()
    if summary is not None:
        directory.save_run(summary)
    return directory


@pytest.fixture(autouse=True)
def _traces_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    valid = [CheckResult(checker="conformance/raft", verdict=Verdict.VALID)]
    monkeypatch.setattr(analysis, "check_traces", lambda directory: valid)
    monkeypatch.setattr(analysis, "link_traces", lambda directory: valid[0])


def verdicts(directory: RunDirectory) -> dict[str, Verdict]:
    return {check.checker: check.verdict for check in analyze(directory).checks}


def test_a_good_run_is_valid_with_its_figures(tmp_path: Path) -> None:
    directory = a_run(tmp_path)
    result = analyze(directory)
    assert result.verdict is Verdict.VALID, result.reason
    figures = result.figures
    assert (figures["operations"], figures["acknowledged"], figures["faults"], figures["leader_faults"]) == (
        41,
        41,
        1,
        1,
    )
    assert figures["invoked_while_impaired"] == 3, "s1's clients invoked at 1.2, 1.5 and 1.8 s"
    assert figures["acknowledged_while_impaired"] == 3
    assert msgspec.json.decode((directory.path / "results.json").read_bytes())["verdict"] == "VALID"
    page = directory.report.read_text()
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len([ElementTree.fromstring(drawing) for drawing in drawings]) == 2, "both well-formed"
    assert "partition: cut s1 | s2 s3" in page
    assert "s2 leads in term 2" in page
    assert "<script" not in page


def test_a_stale_read_names_property_checker_and_replay(tmp_path: Path) -> None:
    directory = a_run(tmp_path, stale=True)
    result = analyze(directory)
    assert result.verdict is Verdict.INVALID
    assert "histories/linearizability: linearizability of each register" in result.reason
    assert "read -> 38" in result.details
    assert (directory.path / "counterexample-1.html").exists()
    assert result.replay == (
        "comitia chaos test --servers 3 --clients 0 --workload register --nemesis partition --time-limit 1 --seed 5 "
        "--rate 1000 --concurrency 3"
    )


def test_a_run_that_tried_too_little_is_unknown(tmp_path: Path) -> None:
    directory = a_run(tmp_path, operations=4)
    result = analyze(directory)
    assert result.verdict is Verdict.UNKNOWN
    assert "5 acknowledged operations of at least 10" in result.reason


def test_a_run_without_the_fault_it_was_asked_for_is_unknown(tmp_path: Path) -> None:
    directory = a_run(tmp_path)
    directory.faults.write_bytes(b"")
    assert verdicts(directory)["effort"] is Verdict.UNKNOWN
    assert "no fault of the kind partition" in analyze(directory).reason


def test_a_run_whose_runner_was_killed_is_judged_by_what_it_stored_and_unknown(tmp_path: Path) -> None:
    directory = a_run(tmp_path, summary=None)
    directory.history.write_bytes(directory.history.read_bytes()[:-10])
    found = verdicts(directory)
    assert found["histories/linearizability"] is Verdict.VALID
    assert found["effort"] is found["liveness"] is Verdict.UNKNOWN


def test_a_killed_runner_does_not_hide_a_lie(tmp_path: Path) -> None:
    assert analyze(a_run(tmp_path, stale=True, summary=None)).verdict is Verdict.INVALID


def test_a_cluster_that_does_not_recover_is_invalid(tmp_path: Path) -> None:
    stuck = msgspec.structs.replace(
        FINISHED, live_s=None, liveness_problem="s2 answered no write within 20 s of the heal"
    )
    result = analyze(a_run(tmp_path, summary=stuck))
    assert result.verdict is Verdict.INVALID
    assert "liveness: a healed cluster serves: s2 answered no write" in result.reason


def test_an_agent_that_ended_by_itself_is_invalid_with_its_last_words(tmp_path: Path) -> None:
    directory = a_run(tmp_path, summary=msgspec.structs.replace(FINISHED, exits=("s3 (exit status 1)",)))
    (directory.logs / "s3.log").write_text("the log is corrupt at record 7\n")
    result = analyze(directory)
    assert result.verdict is Verdict.INVALID
    assert "agents do not end by themselves: s3 (exit status 1)" in result.reason
    assert "corrupt at record 7" in result.details


def test_a_checker_that_crashes_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(directory: Path) -> list[CheckResult]:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(analysis, "check_traces", crash)
    assert verdicts(a_run(tmp_path))["conformance"] is Verdict.UNKNOWN


def test_effort_that_is_never_asked_for_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "ACKNOWLEDGED_PER_SECOND_MIN", 0)
    assert "acknowledged" not in analyze(a_run(tmp_path, operations=4)).reason


def test_analyze_gives_the_exit_code_of_the_verdict(tmp_path: Path) -> None:
    for stale, code in ((False, 0), (True, 1)):
        done = CliRunner().invoke(
            command, ["analyze", str(a_run(tmp_path, stale=stale).path), "--json"], standalone_mode=False
        )
        assert done.return_value == code
        report = msgspec.json.decode(done.stdout.splitlines()[-1])
        assert report["figures"]["acknowledged"] == 41
    done = CliRunner().invoke(command, ["analyze", str(tmp_path)])
    assert done.exit_code == 2, "click's usage error; the root command maps it to 254"
    assert "does not hold a readable run" in done.output


def test_a_journal_is_whole_up_to_its_last_line_at_any_moment(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "leaders.ndjson")
    for number in range(10):
        journal.line(Leadership(number, "s1"))
        assert len(load_lines(tmp_path / "leaders.ndjson", Leadership)) == number + 1
    journal.close()
    whole = (tmp_path / "leaders.ndjson").read_bytes()
    (tmp_path / "leaders.ndjson").write_bytes(whole[:-3])
    assert len(load_lines(tmp_path / "leaders.ndjson", Leadership)) == 9


def test_two_runs_of_one_second_do_not_share_a_directory(tmp_path: Path) -> None:
    assert len({RunDirectory.create(tmp_path, PARAMS, "").path for _ in range(3)}) == 3


def test_an_unknown_nemesis_is_a_usage_error() -> None:
    done = CliRunner().invoke(command, ["test", "--nemesis", "partition,meteor"])
    assert done.exit_code == 2
    assert f"no nemesis 'meteor'; there are: {', '.join(PACKAGES)}; all, or none" in done.output


def test_a_nemesis_that_could_do_nothing_with_so_few_servers_is_a_usage_error() -> None:
    done = CliRunner().invoke(command, ["test", "--servers", "3", "--nemesis", "kill,membership"])
    assert done.exit_code == 2
    assert "the nemesis membership needs --servers 4 or more" in done.output


def test_all_is_every_nemesis_and_the_help_says_what_each_does() -> None:
    said = CliRunner().invoke(command, ["test", "--help"]).output
    for name, package in PACKAGES.items():
        assert name in said
        assert package.purpose in said
    assert "--servers 7 --nemesis all" in said


@pytest.mark.parametrize(
    ("nemesis", "action", "reason"),
    [
        ("membership", "change_configuration", "no membership change took effect"),
        ("snapshot", "restore_snapshot", "no snapshot was installed"),
        ("transfer", "handle_timeout_now", "no transfer finished"),
    ],
)
def test_a_nemesis_that_came_to_nothing_is_unknown(tmp_path: Path, nemesis: str, action: str, reason: str) -> None:
    directory = a_run(tmp_path)
    params, replay = directory.load_params()
    params = msgspec.structs.replace(params, nemesis=("partition", nemesis))
    (directory.path / "params.json").write_bytes(msgspec.json.encode({"params": params, "replay": replay}))
    some = fault("transfer", 3 * SECOND, ("s1",), ())
    with directory.faults.open("ab") as faults:
        faults.write(msgspec.json.encode(msgspec.structs.replace(some, package=nemesis)) + b"\n")
    assert reason in analyze(directory).reason
    (directory.traces / "s1-000001.ndjson").write_text(f'{{"kind":"step","action":"{action}"}}\n')
    result = analyze(directory)
    assert result.verdict is Verdict.VALID, result.reason


def test_servers_that_were_not_restarted_in_turn_make_the_run_unknown(tmp_path: Path) -> None:
    directory = a_run(tmp_path)
    params, replay = directory.load_params()
    params = msgspec.structs.replace(params, nemesis=("partition", "rolling-restart"))
    (directory.path / "params.json").write_bytes(msgspec.json.encode({"params": params, "replay": replay}))

    def roll(node: str, error: str = "") -> None:
        rolled = msgspec.structs.replace(
            fault("roll", 3 * SECOND, () if error else (node,), ()), package="rolling-restart", error=error
        )
        with directory.faults.open("ab") as faults:
            faults.write(msgspec.json.encode(rolled) + b"\n")

    roll("s1")
    roll("s2")
    assert "2 of 3 servers were restarted in turn" in analyze(directory).reason
    roll("s3")
    assert analyze(directory).verdict is Verdict.VALID
    roll("s3", "s3: s3 had not ended 10 s after SIGTERM, and was killed")
    assert "agents end when they are asked to: s3" in analyze(directory).reason


def test_what_needs_no_mending_is_shaded_while_it_was_done() -> None:
    transfer = msgspec.structs.replace(fault("transfer", 5, ("s1",), ()), package="transfer")
    cut = fault("cut", 6, ("s1",), between(["s1"], ["s2"]))
    failed = msgspec.structs.replace(fault("transfer", 7, (), ()), package="transfer", error="500 no")
    spans = shading([transfer, cut, failed, fault("heal", 9, (), ())], 20)
    assert [(name, start, end) for name, start, end, _ in spans] == [("transfer", 5, 6), ("partition", 6, 10)]
