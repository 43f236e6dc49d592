"""Makes a selection file again: which hypotheses each obligation is proved from, and what each lemma is needed for.

An entry that still proves its obligation at the first attempt is kept. Else the hypotheses of a proof from all of them
are taken (the core that the solver names), else the core of the obligation over small sorts, whichever proves it.
Minutes of work if the model has changed much. Must not: be part of a proof run.
"""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable, Iterator
from functools import partial

import z3

from model_checks.proofs import sanity, selection, unbounded
from model_checks.proofs.algebra import System
from model_checks.proofs.obligations import Kind, Obligation, obligations
from model_checks.proofs.prover import LARGE_LIMIT, SEED_STRIDE, SMALL_LIMIT, refute
from model_checks.proofs.selection import Selection
from model_checks.proofs.systems import Examined, named

SEEDS = 3
"""With so many seeds a selection must prove its obligation at the first attempt."""

Extra = tuple[str, ...]
Progress = Callable[[int, int, str], None]


class NotInductive(Exception):
    """No selection proves an obligation: there is nothing to keep. `check prove` shows why."""


def proves(system: System, obligation: Obligation, extra: Extra) -> bool:
    """Whether these hypotheses prove the obligation with each of a few seeds."""
    chosen = Selection({obligation.key: extra}, {}).hypotheses(obligation)
    return all(
        refute(unbounded.formulas(system, obligation, chosen, None), k * SEED_STRIDE, SMALL_LIMIT, 10.0) == z3.unsat
        for k in range(SEEDS)
    )


def cores(examined: Examined, obligation: Obligation) -> Iterator[Extra]:
    """Selections that may do: cores of unbounded proofs from everything, then the core over small sorts."""
    for k in range(SEEDS):
        found = unbounded.core(examined.system, obligation, k * SEED_STRIDE, LARGE_LIMIT)
        if found is not None:
            yield tuple(name for name in found if name != obligation.goal)
    finite = selection.select(examined.system, obligation, examined.need_sizes)
    if finite is not None:
        yield finite


def reselect(system_name: str, task: tuple[Obligation, Extra]) -> tuple[str, Extra | None]:
    """For a worker process: an obligation's name and its selection; None: nothing proves it."""
    examined = named(system_name)
    obligation, present = task
    for extra in itertools.chain([present], cores(examined, obligation)):
        if proves(examined.system, obligation, extra):
            return obligation.key, extra
    return obligation.key, None


def need_of(system_name: str, task: tuple[str, str | None, dict[str, Extra]]) -> tuple[str, str | None]:
    """For a worker process: a lemma and an obligation that fails without it; the present one, if it still does."""
    examined = named(system_name)
    lemma, present, extra = task
    if lemma in examined.implied:
        return lemma, present
    if present is not None and sanity.still_needed(examined.system, present, lemma, examined.need_sizes):
        return lemma, present
    return lemma, selection.find_need(examined.system, lemma, extra, examined.need_sizes)


def rewrite_selection(system_name: str, jobs: int, progress: Progress) -> list[str]:
    """Write the selection file of a system; returns the idle lemmas, which should be deleted. Raises NotInductive."""
    examined = named(system_name)
    present, _ = selection.read(examined.selection)
    names = selection.hypothesis_names(examined.system)
    wanted = [o for o in obligations(examined.system) if o.kind not in (Kind.INITIAL, Kind.MAJORITY)]
    extra: dict[str, Extra] = {}
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        tasks = [(o, tuple(name for name in present.extra.get(o.key, ()) if name in names)) for o in wanted]
        found = pool.imap_unordered(partial(reselect, system_name), tasks, chunksize=4)
        for done, (key, chosen) in enumerate(found, start=1):
            progress(done, len(wanted), key)
            if chosen is None:
                raise NotInductive(
                    f"nothing proves {key}; run: comitia check prove --system {system_name} --only {key}"
                )
            if chosen:
                extra[key] = chosen
        needed_by: dict[str, str] = {}
        lemmas = [lemma.name for lemma in examined.system.lemmas]
        known = {o.key for o in wanted}
        needs = [(lemma, _known(present.needed_by.get(lemma), known), extra) for lemma in lemmas]
        for lemma, need in pool.imap_unordered(partial(need_of, system_name), needs):
            progress(len(wanted), len(wanted), f"the need of {lemma}")
            if need is not None:
                needed_by[lemma] = need
    idle = sorted(set(lemmas) - set(needed_by))
    selection.save(Selection(extra, needed_by), examined.system, examined.selection)
    return idle


def _known(key: str | None, known: set[str]) -> str | None:
    return key if key in known else None
