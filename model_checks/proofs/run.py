"""One run of the prover: obligations in worker processes, then what failed, then whether it says anything.

Must not: print. `command` shows progress and result.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from model_checks.proofs import cti, sanity
from model_checks.proofs.algebra import System
from model_checks.proofs.obligations import Kind, Obligation, obligations
from model_checks.proofs.prover import Portfolio, Proof, prove_all
from model_checks.proofs.report import Findings
from model_checks.proofs.systems import named

COUNTEREXAMPLES_MAX: Final = 3
"""Counterexamples to look for; one would do, a few show where the invariant breaks."""

Progress = Callable[[int, int, str], None]
"""Called with (done, of, what) now and then."""


def chosen(system: System, only: str) -> list[Obligation]:
    """The obligations whose key contains a text (all if it is empty)."""
    return [obligation for obligation in obligations(system) if only in obligation.key]


def prove_raft(
    portfolio: Portfolio, jobs: int = 2, only: str = "", progress: Progress = lambda done, of, what: None
) -> Findings:
    """Prove the portfolio's system, or what `only` names, and look for counterexamples to what is not proved."""
    start = time.perf_counter()
    examined = named(portfolio.system)
    wanted = chosen(examined.system, only)
    proofs: list[Proof] = []
    for proof in prove_all(wanted, portfolio, jobs):
        proofs.append(proof)
        progress(len(proofs), len(wanted), proof.obligation.key)
    unproved = sorted(proof.obligation for proof in proofs if not proof.proved)
    counterexamples: list[cti.Counterexample] = []
    for obligation in unproved:
        if obligation.kind is Kind.MAJORITY or len(counterexamples) == COUNTEREXAMPLES_MAX:
            continue
        progress(len(proofs), len(wanted), f"counterexample to {obligation.key}")
        found = cti.find(examined.system, obligation, portfolio.mutant, examined.sizes)
        if found is not None:
            counterexamples.append(found)
    mutant = portfolio.mutant
    trace = examined.violation(mutant) if mutant and not only else None
    whole = mutant is None and not only
    return Findings(
        proofs=proofs,
        counterexamples=counterexamples,
        unreachable=sanity.unreachable(examined.system, examined.sanity_sizes) if whole else (),
        witness=(examined.possible() is not None) if whole else None,
        mutant=mutant,
        trace=trace,
        seed=portfolio.seed,
        partial=bool(only),
        seconds=time.perf_counter() - start,
    )
