"""The judge of real processes, `model_checks/conformance`, on traces that no SIGKILL can make: crashes that lose
unsynced writes.

Sound cores are believed whatever happened to them; each broken core that breaks a rule of the spec is not.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from model_checks.conformance import check_traces
from model_checks.stateful.hunt import HUNT_STEPS, Hunt
from model_checks.stateful.mutants import MUTANTS, applied
from model_checks.stateful.script import run_script
from model_checks.stateful.violations import Property, Violation
from model_checks.stateful.world import World
from model_checks.verdicts import CheckResult, Verdict

SCHEDULES = Path(__file__).parent / "schedules"
NOT_IN_TRACES = {
    "dropped-entry", "no-back-off", "higher-term-is-not-told", "left-out-never-campaigns", "listens-to-whoever-asks",
} | {name for name, mutant in MUTANTS.items() if mutant.broken is Property.RESTARTS}  # fmt: skip
"""What a state machine is fed shows in the answers to clients, which a world without clients' queries does not have;
that nothing happens, or that a server does not start, is no violation of safety.
"""


def judged(world: World, directory: Path) -> dict[str, CheckResult]:
    """The verdicts on a world's traces, by checker; without those that had nothing to judge."""
    assert world.traces is not None
    world.traces.write_to(directory)
    results = check_traces(directory)
    return {result.checker: result for result in results if not result.reason.startswith("vacuous")}


@pytest.mark.parametrize("seed", range(8))
def test_traces_of_sound_cores_are_believed(seed: int, tmp_path: Path) -> None:
    world = Hunt(seed, traced=True).run(HUNT_STEPS)
    results = judged(world, tmp_path)
    assert {result.verdict for result in results.values()} == {Verdict.VALID}
    assert {"conformance/raft", "conformance/durability", "conformance/invariants"} <= results.keys()


@pytest.mark.parametrize("name", sorted(set(MUTANTS) - NOT_IN_TRACES))
def test_traces_of_broken_cores_are_not_believed(name: str, tmp_path: Path) -> None:
    worlds: list[World] = []
    lines = (SCHEDULES / f"{name}.txt").read_text().splitlines()
    with applied(name):
        try:
            run_script(lines, conformance=False, traced=True, started=worlds.append)
        except Violation as violation:
            assert violation.property is not Property.CONFORMANCE
    verdicts = {result.verdict for result in judged(worlds[0], tmp_path).values()}
    assert Verdict.INVALID in verdicts
