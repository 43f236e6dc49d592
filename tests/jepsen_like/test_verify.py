"""The main job believes a stage only if its exit code and its report agree, and only if it tried enough."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rich.console import Console

from jepsen_like import verify
from jepsen_like.nemesis.package import PACKAGES
from jepsen_like.verify import Stage, StageResult, finish, judge, last_json_object, require_enough, stages
from jepsen_like.workload.catalog import WORKLOADS
from model_checks.verdicts import Verdict, merge

STAGE = Stage("exploration", "why", ("check", "explore", "--json"), 1)
ENOUGH = {
    "acknowledged": 20_000,
    "acknowledged_while_impaired": 500,
    "faults": 15,
    "leader_faults": 3,
    "configuration_changes": 5,
    "snapshots_installed": 2,
    "transfers": 2,
    "lease_reads": 1_000,
}


def report(verdict: str, **more: Any) -> str:
    return "noise\n" + json.dumps({"verdict": verdict, **more}) + "\n"


@pytest.mark.parametrize(("code", "verdict"), [(0, "VALID"), (1, "INVALID"), (2, "UNKNOWN")])
def test_a_stage_has_the_verdict_on_which_exit_code_and_report_agree(code: int, verdict: str) -> None:
    assert judge(STAGE, code, report(verdict), "", 1.0).verdict.value == verdict


@pytest.mark.parametrize(
    ("code", "output"),
    [
        (0, report("INVALID")),
        (1, report("VALID")),
        (0, ""),
        (0, "[1, 2]\n"),
        (255, report("VALID")),
        (254, ""),
        (-9, report("VALID")),
    ],
)
def test_a_stage_that_contradicts_itself_or_dies_is_unknown(code: int, output: str) -> None:
    result = judge(STAGE, code, output, "first\nTUN device missing: run as root\n", 1.0)
    assert result.verdict is Verdict.UNKNOWN
    assert result.reason
    assert code in (0, 1) or "TUN device missing: run as root" in result.reason


def test_the_report_is_the_last_json_object_of_the_output() -> None:
    assert last_json_object('{"verdict": "VALID"}\n{"verdict": "INVALID"}\n{cut off') == {"verdict": "INVALID"}


def test_a_live_run_that_tried_enough_stays_valid() -> None:
    assert require_enough(live(ENOUGH)).verdict is Verdict.VALID


@pytest.mark.parametrize("figure", sorted(ENOUGH))
def test_a_live_run_that_tried_too_little_is_unknown_and_says_of_what(figure: str) -> None:
    result = require_enough(live({**ENOUGH, figure: ENOUGH[figure] - 1}))
    assert result.verdict is Verdict.UNKNOWN
    assert str(ENOUGH[figure]) in result.reason


@pytest.mark.parametrize("figures", [{}, {**ENOUGH, "faults": None}, {**ENOUGH, "faults": "many"}])
def test_a_missing_figure_counts_as_nothing(figures: dict[str, Any]) -> None:
    assert require_enough(live(figures)).verdict is Verdict.UNKNOWN


def test_trying_too_little_does_not_excuse_a_violation() -> None:
    assert require_enough(live({}, Verdict.INVALID)).verdict is Verdict.INVALID


def test_a_stage_that_did_not_run_makes_the_whole_unknown() -> None:
    plan = stages(seed=1, jobs=2, time_limit_s=60)
    progress = verify.Progress(plan, Console(stderr=True))
    for stage in plan[:-1]:
        progress.results[stage.name] = StageResult(name=stage.name, verdict=Verdict.VALID)
    results = finish(plan, progress)
    assert results[-1].reason == "interrupted"
    assert merge(result.verdict for result in results) is Verdict.UNKNOWN


def test_invalid_beats_unknown_beats_valid_and_nothing_is_unknown() -> None:
    assert merge([Verdict.VALID, Verdict.UNKNOWN, Verdict.INVALID]) is Verdict.INVALID
    assert merge([Verdict.VALID, Verdict.UNKNOWN]) is Verdict.UNKNOWN
    assert merge([Verdict.VALID]) is Verdict.VALID
    assert merge([]) is Verdict.UNKNOWN


def live(figures: dict[str, Any], verdict: Verdict = Verdict.VALID) -> StageResult:
    return StageResult(name="live cluster", verdict=verdict, report={"figures": figures})


def test_the_live_run_is_broken_in_every_way_that_it_must_have_tried() -> None:
    plan = {stage.name: stage for stage in stages(seed=1, jobs=2, time_limit_s=60)}
    live_stage = plan["live cluster"]
    nemesis = live_stage.arguments[live_stage.arguments.index("--nemesis") + 1]
    assert set(nemesis.split(",")) == set(PACKAGES) - {"rolling-restart"}


@pytest.mark.parametrize("workload", ["lock", "registry"])
def test_the_live_runs_with_locks_and_the_registry_say_themselves_what_is_too_little(workload: str) -> None:
    stage = next(stage for stage in stages(seed=1, jobs=2, time_limit_s=60) if workload in stage.arguments)
    seconds = float(stage.arguments[stage.arguments.index("--time-limit") + 1])
    needs = WORKLOADS[workload].least
    assert len(needs) >= 5
    assert all(need.missing({}, seconds) for need in needs), "a run that came to nothing is UNKNOWN"
