"""Worker processes that prove obligations of several systems, and look whether the proofs say anything.

A worker builds the systems itself: formulas are functions, which are not sent to other processes. Must not: decide what
a result means.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.pool import AsyncResult, Pool

from model_checks.proofs import ghosts, sanity
from model_checks.proofs.ghosts import Dependence
from model_checks.proofs.obligations import Obligation
from model_checks.proofs.prover import Portfolio, Proof, prove
from model_checks.proofs.systems import named

_portfolios: Sequence[Portfolio] = ()
"""How this worker proves what; set once when it starts."""


@dataclass(frozen=True, slots=True)
class Sanity:
    """Whether a proof says anything."""

    unreachable: tuple[str, ...]
    """Actions that the lemmas forbid."""
    witness: bool
    """Whether the protocol can do what it is for, from the initial state."""


def _begin(portfolios: Sequence[Portfolio]) -> None:
    global _portfolios
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which ends its workers
    _portfolios = portfolios


def _prove(task: tuple[int, Obligation]) -> tuple[int, Proof]:
    position, obligation = task
    portfolio = _portfolios[position]
    return position, prove(named(portfolio.system).system, obligation, portfolio)


def _examine(name: str) -> Sanity:
    examined = named(name)
    unreachable = sanity.unreachable(examined.system, examined.sanity_sizes, event=examined.eventful)
    return Sanity(unreachable, examined.possible() is not None)


def _dependences(name: str) -> list[Dependence]:
    return ghosts.all_dependences(named(name).system)


@contextmanager
def workers(portfolios: Sequence[Portfolio], jobs: int) -> Iterator[Pool]:
    """Worker processes for these portfolios; ended when the block is left."""
    with multiprocessing.get_context("spawn").Pool(jobs, initializer=_begin, initargs=(portfolios,)) as pool:
        yield pool


def prove_all(pool: Pool, tasks: Iterable[tuple[int, Obligation]]) -> Iterator[tuple[int, Proof]]:
    """Prove obligations, each of the portfolio at a position; yields results as they come, in no order."""
    yield from pool.imap_unordered(_prove, tasks, chunksize=2)


def examine(pool: Pool, name: str) -> AsyncResult[Sanity]:
    """Look whether the proof of a system says anything."""
    return pool.apply_async(_examine, (name,))


def dependences(pool: Pool, name: str) -> AsyncResult[list[Dependence]]:
    """What depends on the history below a base."""
    return pool.apply_async(_dependences, (name,))
