"""`comitia check prove`: verdicts, what it prints and writes, and that a stale selection of hypotheses is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from model_checks.proofs import junit, run
from model_checks.proofs import selection as selections
from model_checks.proofs.algebra import Algebra, Symbols, Transition, Value, refined, state_property
from model_checks.proofs.bounded import Run
from model_checks.proofs.command import command, over_seeds
from model_checks.proofs.cti import Counterexample
from model_checks.proofs.fingerprint import fingerprint
from model_checks.proofs.ghosts import Dependence
from model_checks.proofs.obligations import obligations
from model_checks.proofs.prover import Portfolio, Proof
from model_checks.proofs.reads import RAFT
from model_checks.proofs.report import Findings, Report, result, status, verdict
from model_checks.proofs.systems import NAMES, named
from model_checks.verdicts import Verdict

STATIC = named("static")
BY_KEY = {obligation.key: obligation for obligation in obligations(RAFT)}


def proved(key: str) -> Proof:
    return Proof(BY_KEY[key], True, 1.0, 1, 0)


def unproved(key: str) -> Proof:
    return Proof(BY_KEY[key], False, 1.0, 6, 0)


def findings_of(*proofs: Proof) -> Findings:
    return Findings(STATIC, proofs, (), (), True, None, None, 0, False)


def report_of(findings: Findings) -> Report:
    return Report([findings], [], 1.0)


# ------------------------------------------------------------------------------------------------------------ verdicts


def test_unknown_is_a_failure() -> None:
    found = findings_of(proved("timeout/voter"), unproved("grant_vote/voter"))
    answer, reason = verdict(found)
    assert answer is Verdict.UNKNOWN
    assert "grant_vote/voter" in reason
    assert all(word.startswith("FINITE(3 servers, 4 terms") for word in status(found).values())


def test_a_theorem_of_its_own_does_not_spoil_the_others() -> None:
    words = status(findings_of(unproved("theorem/durability")))
    assert words.pop("durability").startswith("FINITE")
    assert set(words.values()) == {"UNBOUNDED"}


def test_quorums_that_need_not_intersect_spoil_everything() -> None:
    found = findings_of(unproved("majority/conclusion"))
    assert set(status(found).values()) == {"NOT INDUCTIVE"}
    assert verdict(found)[0] is Verdict.INVALID


def test_nothing_checked_is_not_valid() -> None:
    checked = result(report_of(findings_of()))
    assert checked.verdict is Verdict.UNKNOWN
    assert checked.reason == "no obligation has that name"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"unreachable": ("timeout",)}, "the lemmas forbid timeout"),
        ({"witness": False}, "the model is empty"),
    ],
)
def test_a_proof_that_says_nothing_is_unknown(change: dict[str, object], reason: str) -> None:
    found = dataclasses.replace(findings_of(proved("timeout/voter")), **change)  # type: ignore[arg-type]
    answer, why = verdict(found)
    assert answer is Verdict.UNKNOWN
    assert reason in why


def test_history_that_makes_a_difference_is_invalid() -> None:
    report = Report([findings_of(proved("timeout/voter"))], [Dependence("recv_snapshot", "guard")], 1.0)
    checked = result(report)
    assert checked.verdict is Verdict.INVALID
    assert "recv_snapshot (guard)" in checked.reason


def test_of_several_seeds_the_worst_verdict_counts() -> None:
    good = report_of(findings_of(proved("timeout/voter")))
    bad = report_of(dataclasses.replace(findings_of(unproved("grant_vote/voter")), seed=1))
    report, checked = over_seeds([good, bad, good])
    assert report is bad
    assert checked.verdict is Verdict.UNKNOWN
    assert checked.figures["seconds_median"] == 1.0
    assert checked.figures["again"] == {"static grant_vote/voter": 1}
    assert over_seeds([good, good])[1].verdict is Verdict.VALID


# ------------------------------------------------------------------------------------------------------------- command


def test_without_options_every_system_is_proved() -> None:
    outcome = CliRunner().invoke(command, ["--only", "theorem/", "--json"], standalone_mode=False)
    assert outcome.return_value == 0
    report = json.loads(outcome.stdout.splitlines()[-1])
    assert report["verdict"] == "VALID"
    assert tuple(report["figures"]["systems"]) == NAMES
    for name, figures in report["figures"]["systems"].items():
        theorems = {theorem.name for theorem in named(name).system.theorems}
        assert figures["matrix_ms"]["theorem"].keys() == theorems


def test_the_matrix_has_invariants_down_and_actions_across_with_milliseconds() -> None:
    arguments = ["--system", "forwarding", "--only", "/token_refused", "--explain"]
    outcome = CliRunner().invoke(command, arguments, standalone_mode=False, env={"COLUMNS": "100"})
    assert outcome.return_value == 0
    assert "1 accept  2 handle_call" in outcome.stdout
    rows = [line.split() for line in outcome.stdout.splitlines() if line.startswith("token_refused")]
    assert len(rows) > 1, "in as many tables as the width needs"
    cells = [cell for row in rows for cell in row[1:]]
    assert len(cells) == len(named("forwarding").system.actions)
    assert all(cell.isdigit() for cell in cells)
    assert "induction over the steps of a run" in " ".join(outcome.stdout.split())


def test_the_command_shows_a_mutants_counterexample_as_two_columns() -> None:
    arguments = ["--system", "static", "--only", "vote_unique", "--mutant", "two_votes", "--timeout", "1"]
    outcome = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert outcome.return_value == 1
    assert "FAIL" in outcome.stdout
    assert "grant_vote(" in outcome.stdout
    assert "before   after" in outcome.stdout
    assert "  > vote(" in outcome.stdout


def test_the_run_of_the_bug_in_membership_changes_is_printed_for_people() -> None:
    outcome = CliRunner().invoke(command, ["--mutant", "no_own_term", "--bounded"], standalone_mode=False)
    assert outcome.return_value == 0
    assert "leader_completeness fails" in outcome.stdout
    assert "change_configuration(" in outcome.stdout
    assert "c1 = n0, n1, n2" in outcome.stdout, "who is in the configurations"
    assert "  q" in outcome.stdout.partition("23.")[2], "who is in the quorums"


def test_a_mutant_of_two_systems_is_looked_for_in_both() -> None:
    arguments = ["--only", "grant_vote/vote_unique", "--mutant", "two_votes", "--timeout", "0.5", "--json"]
    outcome = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert outcome.return_value == 1
    report = json.loads(outcome.stdout.splitlines()[-1])
    assert tuple(report["figures"]["systems"]) == ("static", "whole")


def test_no_obligation_of_that_name_is_unknown() -> None:
    outcome = CliRunner().invoke(command, ["--only", "no such thing"], standalone_mode=False)
    assert outcome.return_value == 2


def test_a_mutant_that_no_system_has_is_refused_with_the_names_of_those_that_there_are() -> None:
    outcome = CliRunner().invoke(command, ["--system", "static", "--mutant", "no_own_term"])
    assert outcome.exit_code == 2
    assert "old_term_commit" in outcome.output


# --------------------------------------------------------------------------------------------------------------- JUnit


def test_junit_has_a_case_for_each_obligation_and_failures_carry_the_reason(tmp_path: Path) -> None:
    refuted = Counterexample(BY_KEY["timeout/voter"], STATIC.sizes, "timeout(n0) does not establish voter")
    found = findings_of(proved("timeout/acker"), unproved("timeout/voter"), unproved("grant_vote/voter"))
    found = dataclasses.replace(found, counterexamples=(refuted,), unreachable=("step_down",))
    file = tmp_path / "proofs.xml"
    junit.write(Report([found], [], 1.0), file)
    root = ElementTree.parse(file).getroot()
    suite = root.find("testsuite[@name='static']")
    assert suite is not None
    cases = {(case.get("classname"), case.get("name")): case.find("failure") for case in suite.iter("testcase")}
    assert cases["prove.static.timeout", "acker"] is None
    failures = {key: failure.text for key, failure in cases.items() if failure is not None}
    assert failures["prove.static.timeout", "voter"] == "timeout(n0) does not establish voter"
    assert "no answer within its limits" in (failures["prove.static.grant_vote", "voter"] or "")
    assert ("prove.static.reachable", "step_down") in failures
    assert suite.get("failures") == str(len(failures)) == "3"
    assert root.get("tests") == str(len(list(root.iter("testcase"))))


def test_the_command_writes_junit(tmp_path: Path) -> None:
    file = tmp_path / "proofs.xml"
    arguments = ["--system", "static", "--only", "theorem/", "--junit", str(file)]
    assert CliRunner().invoke(command, arguments, standalone_mode=False).return_value == 0
    cases = list(ElementTree.parse(file).getroot().iter("testcase"))
    assert [case.get("name") for case in cases] == sorted(theorem.name for theorem in RAFT.theorems)


# ------------------------------------------------------------------------------------------------------------ staleness


@pytest.mark.parametrize("name", NAMES)
def test_the_selections_fit_the_models(name: str) -> None:
    examined = named(name)
    selections.load(examined.system, examined.selection)


def test_a_model_that_has_changed_makes_its_selection_stale() -> None:
    """Whatever is said otherwise changes the fingerprint: a guard, an effect, a lemma, a theorem."""

    def never(a: Algebra, s: Symbols, *arguments: Value) -> Transition:
        return Transition(False, {})

    def nobody(a: Algebra, s: Symbols) -> Value:
        return True

    guarded = dataclasses.replace(RAFT, actions=(refined(RAFT.actions[0], never), *RAFT.actions[1:]))
    prints = {
        fingerprint(RAFT),
        fingerprint(guarded),
        fingerprint(dataclasses.replace(RAFT, lemmas=(*RAFT.lemmas, state_property(nobody)))),
        fingerprint(dataclasses.replace(RAFT, theorems=RAFT.theorems[1:])),
        fingerprint(dataclasses.replace(RAFT, steps=RAFT.steps[1:])),
    }
    assert len(prints) == 5
    assert fingerprint(RAFT) in prints
    with pytest.raises(selections.StaleSelection, match="make it again with: comitia check prove"):
        selections.load(guarded, STATIC.selection)


def test_a_selection_that_does_not_fit_the_model_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "selection.json"
    good = selections.load(RAFT, STATIC.selection)
    for extra, needed_by in (
        ({**good.extra, "timeout/gone": ("acker",)}, good.needed_by),
        ({**good.extra, "timeout/voter": ("gone",)}, good.needed_by),
        (good.extra, {name: key for name, key in good.needed_by.items() if name != "acker"}),
    ):
        selections.save(selections.Selection(extra, needed_by), RAFT, file)
        with pytest.raises(selections.StaleSelection, match="make it again"):
            selections.load(RAFT, file)
    file.write_text("{", encoding="utf-8")
    with pytest.raises(selections.StaleSelection, match="cannot be read"):
        selections.load(RAFT, file)


def test_a_stale_selection_stops_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "selection.json"
    content = json.loads(STATIC.selection.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**content, "made_from": "another"}), encoding="utf-8")
    monkeypatch.setattr(
        "model_checks.proofs.command.named", lambda name: dataclasses.replace(named(name), selection=file)
    )
    outcome = CliRunner().invoke(command, ["--system", "static"])
    assert outcome.exit_code == 1
    assert "was made from model another" in outcome.output
    assert "--rewrite-selection" in outcome.output


# ------------------------------------------------------------------------------------------------------------- progress


def test_a_mutants_violation_is_the_verdict() -> None:
    trace = Run(("  1. timeout(n=n0, t=t1)",))
    found = dataclasses.replace(findings_of(unproved("timeout/voter")), trace=trace, mutant="two_votes")
    assert verdict(found) == (Verdict.INVALID, "a run of 1 steps from the initial state breaks a theorem")


def test_progress_is_told_of_each_obligation() -> None:
    told: list[tuple[int, int, str]] = []
    portfolio = Portfolio(selections.load(RAFT, STATIC.selection))
    run.prove_systems([portfolio], 1, "theorem/", lambda done, of, what: told.append((done, of, what)))
    wanted = len(RAFT.theorems)
    assert [done for done, of, what in told if "theorem/" in what] == list(range(1, wanted + 1))
    assert {of for _, of, _ in told} == {wanted}
