"""Discharges obligations: a portfolio of hypotheses and solver seeds for each, in worker processes.

An attempt is a fresh solver with a set of hypotheses, a seed and a limit of *resources* (Z3's rlimit, not time: the
answer must not depend on how busy the machine is). Attempts, the first "unsat" wins:

1. the selected hypotheses, with three seeds and small limits: a quantified proof succeeds quickly or not at all;
2. all hypotheses, with three seeds and larger limits.

An obligation that no attempt proves is looked at over small sorts (`cti`): a model is a counterexample to induction;
none means UNKNOWN. Neither is a pass. ("sat" from a solver without model-based instantiation means nothing here.)

Must not: keep solver state between obligations.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import z3

from model_checks.proofs import majority, unbounded
from model_checks.proofs.algebra import System
from model_checks.proofs.obligations import Kind, Obligation
from model_checks.proofs.selection import Selection

SMALL_LIMIT: Final = 1_500_000
LARGE_LIMIT: Final = 3_000_000
"""Resources of an attempt; a million is roughly half a second of a core."""
SEED_STRIDE: Final = 7919


@dataclass(frozen=True, slots=True)
class Proof:
    """What became of one obligation."""

    obligation: Obligation
    proved: bool
    milliseconds: float
    attempts: int
    """Solver runs; one if the first seed and the selected hypotheses did it."""
    seed: int
    """The seed of the last attempt: of the one that proved it, if any."""


@dataclass(frozen=True, slots=True)
class Portfolio:
    """How to prove: which system, which hypotheses first, from which seed, against which mutant, for how long."""

    selection: Selection
    seed: int = 0
    mutant: str | None = None
    seconds_max: float = 60.0
    """Wall-clock limit of an obligation, over all attempts."""
    system: str = "static"
    """The name of the system (`systems`): workers build it themselves."""


def attempts(obligation: Obligation, portfolio: Portfolio) -> Iterator[tuple[frozenset[str] | None, int, int]]:
    """(hypotheses or None for all, seed, resource limit), in order."""
    chosen = portfolio.selection.hypotheses(obligation)
    for k in range(3):
        yield chosen, portfolio.seed + k * SEED_STRIDE, SMALL_LIMIT
    if obligation.kind not in (Kind.INITIAL, Kind.MAJORITY):
        for k in range(3):
            yield None, portfolio.seed + k * SEED_STRIDE, LARGE_LIMIT


def prove(system: System, obligation: Obligation, portfolio: Portfolio) -> Proof:
    """Try to prove one obligation."""
    start = time.perf_counter()
    count, seed, proved = 0, portfolio.seed, False
    for chosen, seed, limit in attempts(obligation, portfolio):
        left = portfolio.seconds_max - (time.perf_counter() - start)
        if left <= 0:
            break
        count += 1
        answer = refute(assertions(system, obligation, chosen, portfolio.mutant), seed, limit, left)
        if answer == z3.unsat:
            proved = True
            break
        if answer == z3.sat and obligation.kind is Kind.MAJORITY:  # no quantifiers: no seed will change that
            break
    return Proof(obligation, proved, (time.perf_counter() - start) * 1000, count, seed)


def assertions(
    system: System, obligation: Obligation, chosen: frozenset[str] | None, mutant: str | None
) -> list[z3.BoolRef]:
    """The formulas whose unsatisfiability proves the obligation."""
    if obligation.kind is Kind.MAJORITY:
        return majority.formulas(obligation.goal, mutant)
    return unbounded.formulas(system, obligation, chosen, mutant)


def refute(formulas: Sequence[z3.BoolRef], seed: int, limit: int, seconds: float) -> z3.CheckSatResult:
    """Whether the formulas are unsatisfiable, by a fresh solver."""
    solver = z3.Solver()
    solver.set("mbqi", False)
    solver.set("random_seed", seed)
    solver.set("rlimit", limit)
    solver.set("timeout", max(1, int(seconds * 1000)))
    solver.add(*formulas)
    return solver.check()
