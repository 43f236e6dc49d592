"""One run of the prover: obligations in worker processes, then what failed, then whether it says anything.

Must not: print. `command` shows progress and result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from model_checks.proofs import cti
from model_checks.proofs.algebra import System
from model_checks.proofs.ghosts import Dependence
from model_checks.proofs.obligations import Kind, Obligation, obligations
from model_checks.proofs.prover import Portfolio, Proof
from model_checks.proofs.report import Findings, Report
from model_checks.proofs.systems import named
from model_checks.proofs.workers import Sanity, dependences, examine, prove_all, workers

COUNTEREXAMPLES_MAX: Final = 3
"""Counterexamples to look for; one would do, a few show where the invariant breaks."""

GHOSTS: Final = "whole"
"""The system with snapshots: what lies below a base must make no difference there."""

Progress = Callable[[int, int, str], None]
"""Called with (done, of, what) now and then."""


def chosen(system: System, only: str) -> list[Obligation]:
    """The obligations whose key contains a text (all if it is empty)."""
    return [obligation for obligation in obligations(system) if only in obligation.key]


def prove_systems(
    portfolios: Sequence[Portfolio],
    jobs: int = 2,
    only: str = "",
    progress: Progress = lambda done, of, what: None,
    *,
    sane: bool = True,
) -> Report:
    """Prove the portfolios' systems, or what `only` names of them, and look for counterexamples to what is not proved.

    `sane`: look, too, whether the proofs say anything (not for mutants, nor if only some obligations are wanted).
    """
    start = time.perf_counter()
    wanted = [
        (position, obligation)
        for position, portfolio in enumerate(portfolios)
        for obligation in chosen(named(portfolio.system).system, only)
    ]
    proofs: list[list[Proof]] = [[] for _ in portfolios]
    sane = sane and not only and all(portfolio.mutant is None for portfolio in portfolios)
    ghosts: list[Dependence] | None = None
    with workers(portfolios, jobs) as pool:
        looked = [examine(pool, portfolio.system) for portfolio in portfolios] if sane else []
        with_ghosts = sane and any(portfolio.system == GHOSTS for portfolio in portfolios)
        asked = dependences(pool, GHOSTS) if with_ghosts else None
        for done, (position, proof) in enumerate(prove_all(pool, wanted), start=1):
            proofs[position].append(proof)
            progress(done, len(wanted), f"{portfolios[position].system} {proof.obligation.key}")
        progress(len(wanted), len(wanted), "whether it says anything")
        sanity: list[Sanity | None] = [result.get() for result in looked]
        ghosts = asked.get() if asked is not None else None
    systems = []
    for portfolio, found, sound in zip(portfolios, proofs, sanity or [None] * len(portfolios), strict=True):
        progress(len(wanted), len(wanted), f"counterexamples in {portfolio.system}")
        mutant = portfolio.mutant
        systems.append(
            Findings(
                examined=named(portfolio.system),
                proofs=found,
                counterexamples=counterexamples(portfolio, found),
                unreachable=sound.unreachable if sound else (),
                witness=sound.witness if sound else None,
                mutant=mutant,
                trace=named(portfolio.system).violation(mutant) if mutant and not only else None,
                seed=portfolio.seed,
                partial=bool(only),
            )
        )
    return Report(systems, ghosts, time.perf_counter() - start)


def counterexamples(portfolio: Portfolio, proofs: Sequence[Proof]) -> list[cti.Counterexample]:
    """Counterexamples to induction to what is not proved, up to the first few."""
    examined = named(portfolio.system)
    found: list[cti.Counterexample] = []
    for obligation in sorted(proof.obligation for proof in proofs if not proof.proved):
        if obligation.kind is Kind.MAJORITY or len(found) == COUNTEREXAMPLES_MAX:
            continue
        counterexample = cti.find(examined.system, obligation, portfolio.mutant, examined.sizes)
        if counterexample is not None:
            found.append(counterexample)
    return found
