"""`comitia check explore`: exit codes, the JSON object on the last line, and the words for people."""

from __future__ import annotations

import json
from typing import Any

import pytest

import comitia
from model_checks.explore import command
from model_checks.explore.profiles import PROFILES, Leg
from spec.raft.bounds import Bounds


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop:
        comitia.main(["check", "explore", *arguments])
    assert isinstance(stop.value.code, int)
    return stop.value.code, capsys.readouterr().out


def reported(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code, output = run(capsys, *arguments, "--json")
    report = json.loads(output.splitlines()[-1])
    assert isinstance(report, dict)
    return code, report


def test_a_valid_exploration_reports_counts_coverage_and_local_steps(capsys: pytest.CaptureFixture[str]) -> None:
    code, report = reported(capsys, "--servers", "2", "--max-term", "1")
    assert (code, report["verdict"], report["reason"]) == (0, "VALID", "")
    figures = report["figures"]
    assert (figures["distinct"], figures["generated"], figures["depth"]) == (65, 110, 16)
    assert figures["local_transitions"] == sum(figures["coverage"].values()) == 440
    assert figures["legs"][0]["bounds"]["servers"] == 2
    assert "action never taken: crash_restart" in figures["warnings"]
    assert len(report["summary"]) <= 110


def test_a_mutant_is_invalid_and_its_counterexample_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    code, report = reported(capsys, "--mutant", "old_term_commit")
    assert (code, report["verdict"], report["property"]) == (1, "INVALID", "Leader Completeness")
    assert "advance_commit_index  1" in report["details"]
    assert report["details"].endswith("broken: Leader Completeness")


def test_the_compiled_search_is_one_option_away(capsys: pytest.CaptureFixture[str]) -> None:
    code, report = reported(capsys, "--max-term", "1", "--compiled")
    assert (code, report["figures"]["distinct"], report["figures"]["generated"]) == (0, 10_311, 45_210)


def test_without_numba_the_compiled_search_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stop:
        comitia.main(["check", "explore", "--compiled"])
    assert stop.value.code == 254
    assert "comitia[checks]" in capsys.readouterr().err


def test_a_limit_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    code, report = reported(capsys, "--max-term", "1", "--states-max", "50")
    assert (code, report["verdict"]) == (2, "UNKNOWN")
    assert "stopped at" in report["reason"]


def test_people_see_bounds_coverage_witnesses_and_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    code, output = run(capsys, "--servers", "2", "--max-term", "1", "--oracle")
    assert code == 0
    for words in ("2 servers, term 1, log 1", "append_entries_response", "a leader is elected", "VALID"):
        assert words in output
    assert "warning: action never taken: crash_restart" in output


def test_a_profile_that_never_takes_an_action_is_unknown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = Leg(Bounds(servers=1, max_term=1))
    monkeypatch.setattr(command, "PROFILES", {**PROFILES, "small": (narrow,)})
    code, report = reported(capsys, "--profile", "small")
    assert (code, report["verdict"]) == (2, "UNKNOWN")
    assert "action never taken: request_vote" in report["reason"]


def test_the_mutants_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    code, output = run(capsys, "--mutant", "list")
    assert code == 0
    assert "old_term_commit" in output
    assert "figure 8" in output


@pytest.mark.parametrize(
    "arguments", [("--mutant", "nobody"), ("--start", "figure_8", "--servers", "5"), ("--property", "Liveness")]
)
def test_bad_arguments_are_usage_errors(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    assert run(capsys, *arguments)[0] == 254
