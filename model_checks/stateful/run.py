"""The stateful check as one call: Hypothesis first, then the hunt, for so many schedules or so many seconds."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity
from hypothesis.stateful import run_state_machine_as_test

from model_checks.stateful.hunt import HUNT_STEPS, Found, shrink, try_seed
from model_checks.stateful.machine import CoreMachine
from model_checks.stateful.violations import Property, Violation
from model_checks.verdicts import CheckResult, Verdict

CHECKER = "stateful"
HYPOTHESIS_BATCH = 20
MUST_HAPPEN = (
    "elected", "acknowledged", "read answered", "read by lease", "crash", "restart", "cut", "lose",
    "configuration changed", "snapshot taken", "snapshot restored", "segment made ahead", "power failed in a call",
)  # fmt: skip
"""A run in which one of these never happened checked too little: UNKNOWN."""


def run_stateful(
    *,
    seed: int,
    seconds: float | None = None,
    examples: int = 400,
    conformance: bool = True,
    progress: Callable[[str], None] = lambda text: None,
) -> CheckResult:
    """Drive cores by random schedules until `seconds` are over, or through `examples` schedules; half each by
    Hypothesis and hunt.

    The same seed and number of examples give the same schedules. INVALID comes with a schedule that `comitia check
    stateful --replay` runs again. `progress` is told, now and then, how far it is.
    """
    started = time.monotonic()
    totals: Counter[str] = Counter()

    def share_used() -> float:
        done = totals["schedules"] / examples if seconds is None else (time.monotonic() - started) / seconds
        progress(f"stateful: {totals['schedules']} schedules, {totals['spec steps']} steps of the spec")
        return done

    found = _by_hypothesis(seed, totals, conformance, lambda: share_used() < 0.5)
    if found is None:
        found = _by_hunt(seed, totals, conformance, lambda: share_used() < 1.0)
    return _result(found, totals, seed, time.monotonic() - started)


def _by_hypothesis(seed: int, totals: Counter[str], conformance: bool, go_on: Callable[[], bool]) -> Found | None:
    """Batches of the machine, each with a seed of its own, derived from `seed`."""

    class SeededMachine(CoreMachine):
        pass

    SeededMachine.conformance = conformance
    SeededMachine.totals = totals
    settings = hypothesis.settings(
        max_examples=HYPOTHESIS_BATCH,
        stateful_step_count=60,
        phases=(Phase.generate,),
        deadline=None,
        database=None,
        print_blob=False,
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    batch = 0
    while go_on():
        machine = hypothesis.seed(seed * 1_000_003 + batch)(SeededMachine)
        batch += 1
        try:
            run_state_machine_as_test(machine, settings=settings)
        except Violation as violation:
            found = Found(seed, violation.property, violation.text, SeededMachine.failed)
            return shrink(found, conformance=conformance)
        except Exception as error:
            found = Found(seed, Property.NO_EXCEPTION, f"{type(error).__name__}: {error}", SeededMachine.failed)
            return shrink(found, conformance=conformance)
    return None


def _by_hunt(seed: int, totals: Counter[str], conformance: bool, go_on: Callable[[], bool]) -> Found | None:
    number = 0
    while go_on():
        outcome = try_seed(seed * 1_000_003 + number, HUNT_STEPS, conformance=conformance)
        number += 1
        if isinstance(outcome, Found):
            return shrink(outcome, conformance=conformance)
        totals.update(outcome.counts)
        totals["schedules"] += 1
    return None


def _result(found: Found | None, totals: Counter[str], seed: int, seconds: float) -> CheckResult:
    figures = {"seed": seed, **{name: totals[name] for name in sorted(totals)}}
    if found is not None:
        return CheckResult(
            checker=CHECKER,
            verdict=Verdict.INVALID,
            property=found.broken.value,
            reason=found.text,
            details="\n".join(found.transcript),
            figures=figures,
            seconds=seconds,
        )
    missing = [name for name in MUST_HAPPEN if not totals[name]]
    return CheckResult(
        checker=CHECKER,
        verdict=Verdict.UNKNOWN if missing else Verdict.VALID,
        reason=f"too little happened: no {', no '.join(missing)}; run it for longer" if missing else "",
        figures=figures,
        seconds=seconds,
    )
